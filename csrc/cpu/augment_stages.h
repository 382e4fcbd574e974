#pragma once

#include "augment_workspace.h"
#include "element.h"

// What happens to whole images around the operations: cropped, chains mixed, boxes, written.
namespace daqakd::cpu {

// The pixels along a side whose source, `shift` pixels further, is inside as well.
struct Overlap {
  DAQAKD_INLINE Overlap(int64_t side, int64_t shift)
      : begin(std::max<int64_t>(0, -shift)), end(std::min(side, side - shift)) {}

  int64_t begin, end;
};

// pixels[y, x] = image[y + top, x + left], 0 outside; mirrored before it is shifted.
struct Crop {
  DAQAKD_INLINE static void run(
      const Workspace* ws, const uint8_t* image, int64_t top, int64_t left, bool flip,
      uint8_t* pixels) {
    const int64_t width = ws->width;
    const Overlap down(ws->height, top), across(width, left);
    const int64_t first = flip ? width - across.end : across.begin;
    std::memset(pixels, 0, 3 * ws->area);
    if (across.begin >= across.end) return;
    for (int64_t c = 0; c < 3; ++c)
      for (int64_t y = down.begin; y < down.end; ++y)
        line(
            image + c * ws->area + (y + top) * width + left + across.begin,
            across.end - across.begin, flip, pixels + c * ws->area + y * width + first);
  }

  DAQAKD_INLINE static void line(
      const uint8_t* __restrict__ from, int64_t n, bool flip, uint8_t* __restrict__ to) {
    if (!flip) std::memcpy(to, from, n);
    for (int64_t i = 0; flip && i < n; ++i) to[i] = from[n - 1 - i];
  }
};

// The first of the images [1 + chains, n] becomes their sum, weighted by share.
struct MixChains {
  DAQAKD_INLINE static void run(
      uint8_t* __restrict__ images, int64_t n, const float* share, int chains) {
    for (int64_t at = 0; at < n; at += kChunk) {
      const int count = int(std::min<int64_t>(kChunk, n - at));
      float total[kChunk] = {};
      for (int c = 0; c <= chains; ++c)
        for (int i = 0; i < count; ++i) total[i] += share[c] * float(images[c * n + at + i]);
      for (int i = 0; i < count; ++i) images[at + i] = truncated(total[i]);
    }
  }
};

// The part of a box (left, top, right, bottom) within the image.
struct Box {
  Box(const int32_t* box, const Plan& plan)
      : left(std::max(box[0], 0)),
        top(std::max(box[1], 0)),
        right(std::min(box[2], plan.width)),
        bottom(std::min(box[3], plan.height)) {}

  // body(first pixel, count) for each of its rows, all channels
  template <class F>
  void each_row(const Plan& plan, const F& body) const {
    for (int c = 0; c < 3; ++c)
      for (int y = top; y < bottom && left < right; ++y)
        body(c * plan.area() + int64_t(y) * plan.width + left, right - left);
  }

  int left, top, right, bottom;
};

// Writes images: through the values, in the output's dtype and memory order.
template <class T>
struct Writer {
  Writer(const Plan& plan, bool channels_last, T* out)
      : area(plan.area()),
        channel(channels_last ? 1 : plan.area()),
        step(channels_last ? 3 : 1),
        values(plan.values),
        out(out) {
    for (int i = 0; i < 3 * 256; ++i)
      if constexpr (std::is_same_v<T, uint8_t>)
        table[i] = uint8_t(i % 256);
      else
        table[i] = store<T>(Compute<T>(values[i]));
  }

  void write(const uint8_t* pixels, int64_t image) const {
    for (int c = 0; c < 3; ++c) {
      const uint8_t* __restrict__ from = pixels + c * area;
      const T* __restrict__ value = table + 256 * c;
      T* __restrict__ to = out + 3 * area * image + c * channel;
      for (int64_t i = 0; i < area; ++i) to[i * step] = value[from[i]];
    }
  }

  // MixUp.
  void write(const uint8_t* pixels, const uint8_t* other, float weight, int64_t image) const {
    if constexpr (!std::is_same_v<T, uint8_t>)
      for (int c = 0; c < 3; ++c) {
        T* to = out + 3 * area * image + c * channel;
        for (int64_t i = 0; i < area; ++i) {
          const float own = weight * values[256 * c + pixels[c * area + i]];
          const float rest = (1.0f - weight) * values[256 * c + other[c * area + i]];
          to[i * step] = store<T>(Compute<T>(own + rest));
        }
      }
  }

  int64_t area, channel, step;
  const float* values;  // [3, 256]
  T* out;               // [outputs, 3, height, width]
  T table[3 * 256];
};

}  // namespace daqakd::cpu
