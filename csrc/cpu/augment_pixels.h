#pragma once

#include "augment_lookup.h"
#include "augment_workspace.h"

// Operations that leave pixels where they are. Loops that a compiler can vectorize stand in a
// struct of their own, compiled for each instruction set.
namespace daqakd::cpu {

inline void lut(Workspace& ws, const uint8_t* table) {  // [256]
  look_up(ws.pixels, 3 * ws.area, table);
}

// Four histograms: increments of one counter would wait for each other.
inline void histogram(const uint8_t* pixels, int64_t n, unsigned* counts) {  // [256]
  unsigned parts[4][256] = {};
  int64_t i = 0;
  for (; i + 8 <= n; i += 8) {
    uint64_t eight;
    std::memcpy(&eight, pixels + i, 8);
    for (int k = 0; k < 8; ++k) ++parts[k % 4][eight >> 8 * k & 255];
  }
  for (; i < n; ++i) ++parts[0][pixels[i]];
  for (int v = 0; v < 256; ++v) counts[v] = parts[0][v] + parts[1][v] + parts[2][v] + parts[3][v];
}

struct EqualizeTable {
  DAQAKD_INLINE static void run(
      const unsigned* __restrict__ below, unsigned last, unsigned area,
      uint8_t* __restrict__ table) {
    for (int v = 0; v < 256; ++v) table[v] = equalized(v, below[v], last, area);
  }
};

inline void equalize(Workspace& ws) {
  for (int c = 0; c < 3; ++c) {
    uint8_t *channel = ws.pixels + c * ws.area, table[256];
    unsigned counts[256], below[256], sum = 0;
    histogram(channel, ws.area, counts);
    int largest = 255;
    while (largest > 0 && counts[largest] == 0) --largest;
    for (int v = 0; v < 256; sum += counts[v++]) below[v] = sum;
    run<EqualizeTable>(
        static_cast<const unsigned*>(below), counts[largest], unsigned(ws.area),
        static_cast<uint8_t*>(table));
    look_up(channel, ws.area, table);
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
void stretch(Workspace& ws) {
  for (int c = 0; c < 3; ++c) {
    uint8_t *channel = ws.pixels + c * ws.area, table[256];
    int low, high;
    run<Extremes>(static_cast<const uint8_t*>(channel), ws.area, &low, &high);
    if (low >= high) continue;
    run<Stretched<kPil>>(low, high, static_cast<uint8_t*>(table));
    look_up(channel, ws.area, table);
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

// By value: stores to bytes could change factors behind a pointer.
template <bool kPil>
struct Blend {
  explicit Blend(const float* factors) : factor(factors[0]), rest(factors[1]) {}

  DAQAKD_INLINE uint8_t of(float v, float d) const {
    return kPil ? blend_pil(v, d, factor) : blend(v, d, factor, rest);
  }

  float factor, rest;
};

template <bool kPil>
struct BlendLevels {
  DAQAKD_INLINE static void run(const Blend<kPil> blend, float d, uint8_t* __restrict__ table) {
    for (int v = 0; v < 256; ++v) table[v] = blend.of(float(v), d);
  }
};

template <bool kPil>
void contrast(Workspace& ws, const float* factors) {  // [2]
  const int64_t sum = run<GreySum<kPil>>(static_cast<const uint8_t*>(ws.pixels), ws.area);
  uint8_t table[256];
  const float mean = kPil ? mean_luma(sum, ws.area) : mean_grey(sum, ws.area);
  run<BlendLevels<kPil>>(Blend<kPil>(factors), mean, static_cast<uint8_t*>(table));
  lut(ws, table);
}

template <bool kPil>
struct BlendGrey {
  DAQAKD_INLINE static void run(const Blend<kPil> blend, uint8_t* pixels, int64_t area) {
    uint8_t* __restrict__ r = pixels;
    uint8_t* __restrict__ g = r + area;
    uint8_t* __restrict__ b = g + area;
    for (int64_t i = 0; i < area; ++i) {
      const float d = float(kPil ? luma(r[i], g[i], b[i]) : grey(r[i], g[i], b[i]));
      r[i] = blend.of(r[i], d);
      g[i] = blend.of(g[i], d);
      b[i] = blend.of(b[i], d);
    }
  }
};

template <bool kPil>
void color(Workspace& ws, const float* factors) {  // [2]
  run<BlendGrey<kPil>>(Blend<kPil>(factors), ws.pixels, ws.area);
}

// Each pixel by the eight around it, as if each line continued in the next.
struct Smooth {
  DAQAKD_INLINE static void run(
      const uint8_t* __restrict__ v, int64_t width, int64_t area, uint8_t* __restrict__ out) {
    for (int64_t i = width + 1; i < area - width - 1; ++i) {
      const int sum = v[i - width - 1] + v[i - width] + v[i - width + 1] + v[i - 1] + 5 * v[i] +
                      v[i + 1] + v[i + width - 1] + v[i + width] + v[i + width + 1];
      out[i] = uint8_t(smoothed(sum));
    }
  }
};

template <bool kPil>
struct BlendImages {
  DAQAKD_INLINE static void run(
      const Blend<kPil> blend, const uint8_t* __restrict__ other, int64_t n,
      uint8_t* __restrict__ pixels) {
    for (int64_t i = 0; i < n; ++i) pixels[i] = blend.of(pixels[i], other[i]);
  }
};

// Pixels on the image's edges stay as they are.
inline void copy_edges(const uint8_t* pixels, int64_t width, int64_t area, uint8_t* out) {
  std::memcpy(out, pixels, width);
  for (int64_t at = 0; at < area; at += width) {
    out[at] = pixels[at];
    out[at + width - 1] = pixels[at + width - 1];
  }
  std::memcpy(out + area - width, pixels + area - width, width);
}

template <bool kPil>
void sharpen(Workspace& ws, const float* factors) {  // [2]
  const int64_t width = ws.width, area = ws.area;
  if (ws.height < 3 || width < 3) return;
  for (int c = 0; c < 3; ++c) {
    const uint8_t* channel = ws.pixels + c * area;
    uint8_t* other = ws.spare.get() + c * area;
    run<Smooth>(channel, width, area, other);
    copy_edges(channel, width, area, other);
  }
  const uint8_t* other = ws.spare.get();
  run<BlendImages<kPil>>(Blend<kPil>(factors), other, 3 * area, ws.pixels);
}

}  // namespace daqakd::cpu
