#pragma once

#include "../formulas/augment.h"

#include <cstring>
#include <memory>

#include "../common/math.h"
#include "../common/plan.h"
#include "../common/simd.h"

// One image on one thread: a desk with its pixels, and an operation at a time on them. Loops that a
// compiler can vectorize stand in a struct of their own, compiled for each instruction set.
namespace daqakd::cpu {

constexpr int kChunk = 256;  // places of a row that are looked up together

struct Desk {
  explicit Desk(const Plan& plan)
      : height(plan.height),
        width(plan.width),
        pitch(width + 2 * kRim),
        area(plan.area()),
        rimmed_area(int64_t(pitch) * (height + 2 * kRim)),
        original(new uint8_t[3 * area]),
        pixels(new uint8_t[3 * area]),
        rimmed(new uint8_t[3 * rimmed_area]()),
        total(plan.share == nullptr ? nullptr : new float[3 * area]) {}

  // Copies the pixels into the rim.
  void surround() {
    for (int c = 0; c < 3; ++c)
      for (int y = 0; y < height; ++y)
        std::memcpy(line(c, y), pixels.get() + c * area + int64_t(y) * width, width);
  }

  uint8_t* line(int c, int y) const {
    return rimmed.get() + c * rimmed_area + int64_t(y + kRim) * pitch + kRim;
  }

  int height, width, pitch;
  int64_t area, rimmed_area;
  std::unique_ptr<uint8_t[]> original;  // [3, height, width], cropped
  std::unique_ptr<uint8_t[]> pixels;    // [3, height, width], what operations change
  std::unique_ptr<uint8_t[]> rimmed;    // [3, height + 4, width + 4]
  std::unique_ptr<float[]> total;       // [3, height, width], the sum of the chains
};

// table: a byte for each value.
inline void look_up(uint8_t* pixels, int64_t n, const uint8_t* table) {
  for (int64_t i = 0; i < n; ++i) pixels[i] = table[pixels[i]];
}

inline void lut(Desk& desk, const uint8_t* table) {  // [256]
  look_up(desk.pixels.get(), 3 * desk.area, table);
}

// Four histograms: equal neighbours would wait for each other.
inline void histogram(const uint8_t* pixels, int64_t n, unsigned* counts) {  // [256]
  unsigned parts[4][256] = {};
  int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int k = 0; k < 4; ++k) ++parts[k][pixels[i + k]];
  for (; i < n; ++i) ++parts[0][pixels[i]];
  for (int v = 0; v < 256; ++v) counts[v] = parts[0][v] + parts[1][v] + parts[2][v] + parts[3][v];
}

inline void equalize(Desk& desk) {
  for (int c = 0; c < 3; ++c) {
    uint8_t *channel = desk.pixels.get() + c * desk.area, table[256];
    unsigned counts[256], below = 0;
    histogram(channel, desk.area, counts);
    int largest = 255;
    while (largest > 0 && counts[largest] == 0) --largest;
    for (int v = 0; v < 256; below += counts[v++])
      table[v] = equalized(v, below, counts[largest], unsigned(desk.area));
    look_up(channel, desk.area, table);
  }
}

struct Extremes {
  DAQAKD_INLINE static void run(const uint8_t* pixels, int64_t n, int* low, int* high) {
    uint8_t least = 255, most = 0;
    for (int64_t i = 0; i < n; ++i) {
      least = pixels[i] < least ? pixels[i] : least;
      most = pixels[i] > most ? pixels[i] : most;
    }
    *low = least;
    *high = most;
  }
};

template <bool kPil>
struct Stretched {
  DAQAKD_INLINE static void run(int low, int high, uint8_t* __restrict__ table) {
    for (int v = 0; v < 256; ++v)
      table[v] = kPil ? autocontrast_pil(v, low, high) : autocontrast(v, low, high);
  }
};

template <bool kPil>
void stretch(Desk& desk) {
  for (int c = 0; c < 3; ++c) {
    uint8_t *channel = desk.pixels.get() + c * desk.area, table[256];
    int low, high;
    run<Extremes>(static_cast<const uint8_t*>(channel), desk.area, &low, &high);
    if (low >= high) continue;
    run<Stretched<kPil>>(low, high, static_cast<uint8_t*>(table));
    look_up(channel, desk.area, table);
  }
}

template <bool kPil>
struct GreySum {
  DAQAKD_INLINE static int64_t run(const uint8_t* pixels, int64_t area) {
    const uint8_t *r = pixels, *g = r + area, *b = g + area;
    int64_t sum = 0;
    for (int64_t first = 0; first < area; first += kChunk) {
      const int64_t end = std::min<int64_t>(area, first + kChunk);
      int part = 0;
      for (int64_t i = first; i < end; ++i)
        part += kPil ? luma(r[i], g[i], b[i]) : grey(r[i], g[i], b[i]);
      sum += part;
    }
    return sum;
  }
};

template <bool kPil>
DAQAKD_INLINE uint8_t blended(float v, float d, const float* factors) {
  return kPil ? blend_pil(v, d, factors[0]) : blend(v, d, factors[0], factors[1]);
}

template <bool kPil>
struct BlendLevels {
  DAQAKD_INLINE static void run(float d, const float* factors, uint8_t* __restrict__ table) {
    for (int v = 0; v < 256; ++v) table[v] = blended<kPil>(float(v), d, factors);
  }
};

template <bool kPil>
void contrast(Desk& desk, const float* factors) {  // [2]
  const int64_t sum = run<GreySum<kPil>>(static_cast<const uint8_t*>(desk.pixels.get()), desk.area);
  uint8_t table[256];
  const float mean = kPil ? mean_luma(sum, desk.area) : mean_grey(sum, desk.area);
  run<BlendLevels<kPil>>(mean, factors, static_cast<uint8_t*>(table));
  lut(desk, table);
}

template <bool kPil>
struct Color {
  DAQAKD_INLINE static void run(uint8_t* pixels, int64_t area, const float* factors) {
    uint8_t *__restrict__ r = pixels, *__restrict__ g = r + area, *__restrict__ b = g + area;
    for (int64_t i = 0; i < area; ++i) {
      const float d = float(kPil ? luma(r[i], g[i], b[i]) : grey(r[i], g[i], b[i]));
      r[i] = blended<kPil>(r[i], d, factors);
      g[i] = blended<kPil>(g[i], d, factors);
      b[i] = blended<kPil>(b[i], d, factors);
    }
  }
};

template <bool kPil>
struct SharpenLine {
  // v: the line in a rimmed image; its first and last pixel stay.
  DAQAKD_INLINE static void run(
      const uint8_t* v, int64_t pitch, int width, const float* factors, uint8_t* __restrict__ out) {
    const uint8_t *above = v - pitch, *below = v + pitch;
    for (int x = 1; x < width - 1; ++x) {
      const int sum = above[x - 1] + above[x] + above[x + 1] + v[x - 1] + 5 * v[x] + v[x + 1] +
                      below[x - 1] + below[x] + below[x + 1];
      out[x] = blended<kPil>(v[x], float(smoothed(sum)), factors);
    }
    for (const int x : {0, width - 1}) out[x] = blended<kPil>(v[x], v[x], factors);
  }
};

template <bool kPil>
void sharpen(Desk& desk, const float* factors) {  // [2]
  if (desk.height < 3 || desk.width < 3) return;
  desk.surround();
  for (int c = 0; c < 3; ++c) {
    uint8_t* channel = desk.pixels.get() + c * desk.area;
    for (const int y : {0, desk.height - 1})
      for (int x = 0; x < desk.width; ++x) {
        uint8_t& pixel = channel[int64_t(y) * desk.width + x];
        pixel = blended<kPil>(pixel, pixel, factors);
      }
    for (int y = 1; y < desk.height - 1; ++y)
      run<SharpenLine<kPil>>(
          static_cast<const uint8_t*>(desk.line(c, y)), int64_t(desk.pitch), desk.width, factors,
          channel + int64_t(y) * desk.width);
  }
}

}  // namespace daqakd::cpu
