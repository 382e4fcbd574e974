#pragma once

#include <cmath>
#include <cstdint>

#include "../common/bits.h"

// The operations on uint8 pixels, as daqakd/functional/augment.py defines them. Every operation is
// rounded once, in the order written, so that all devices have the same bits.
namespace daqakd {

enum class Kind : int8_t {
  identity,
  lut,
  equalize,
  fixed,
  nearest,
  bilinear,
  autocontrast_pil,
  contrast_pil,
  color_pil,
  sharpness_pil,
  autocontrast,
  contrast,
  color,
  sharpness,
};

// a * b + c, rounded once.
DAQAKD_INLINE float fused(float a, float b, float c) {
#if defined(__CUDA_ARCH__)
  return __fmaf_rn(a, b, c);
#else
  return std::fma(a, b, c);
#endif
}

// Toward zero after clipping to a byte; NaN becomes 0.
DAQAKD_INLINE uint8_t truncated(double v) {
  return uint8_t(int(v > 0.0 ? (v < 255.0 ? v : 255.0) : 0.0));
}

// Clips the bits, ordered as positive floats are: choices between floats would become branches.
DAQAKD_INLINE uint8_t truncated(float v) {
  const int32_t bits = int32_t(bits_as<uint32_t>(v)) & -int32_t(v > 0.0f),
                most = 0x437f0000;  // 255
  return uint8_t(int(bits_as<float>(uint32_t(bits < most ? bits : most))));
}

// Pillow's grey.
DAQAKD_INLINE int luma(int r, int g, int b) {
  return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16;
}

// torchvision's grey.
DAQAKD_INLINE int grey(int r, int g, int b) {
  return int(0.2989f * float(r) + 0.587f * float(g) + 0.114f * float(b));
}

// The mean grey rounded half up.
DAQAKD_INLINE float mean_luma(int64_t sum, int64_t count) {
  return float((2 * sum + count) / (2 * count));
}

DAQAKD_INLINE float mean_grey(int64_t sum, int64_t count) { return float(sum) / float(count); }

DAQAKD_INLINE uint8_t blend_pil(float v, float d, float factor) {
  return truncated(d + factor * (v - d));
}

DAQAKD_INLINE uint8_t blend(float v, float d, float factor, float rest) {
  return truncated(factor * v + rest * d);
}

// sum: of 3 x 3 pixels, the middle one counting 5 times; never a half. In 16 bits, which hold it:
// twice as many at once.
DAQAKD_INLINE int smoothed(int sum) { return uint16_t(2 * sum + 13) / 26; }

// a / b rounded down, for a < 2^31. A host divides doubles, which is exact here, many at once.
DAQAKD_INLINE unsigned whole_quotient(unsigned a, unsigned b) {
#if defined(__CUDA_ARCH__)
  return a / b;
#else
  return unsigned(int(double(int(a)) / double(int(b))));
#endif
}

// below: pixels of the channel with a smaller value; `last`: those with the largest.
DAQAKD_INLINE uint8_t equalized(int v, unsigned below, unsigned last, unsigned count) {
  const unsigned step = (count - last) / 255u;
  if (step == 0) return uint8_t(v);
  const unsigned spread = whole_quotient(step / 2 + below, step);
  return uint8_t(spread < 255u ? spread : 255u);
}

DAQAKD_INLINE uint8_t autocontrast_pil(int v, int low, int high) {
  if (low >= high) return uint8_t(v);
  const double scale = 255.0 / double(high - low);
  return truncated(double(v) * scale + double(-low) * scale);
}

DAQAKD_INLINE uint8_t autocontrast(int v, int low, int high) {
  if (low >= high) return uint8_t(v);
  const float scale = 1.0f / float(high - low) * 255.0f;
  return truncated(float(v - low) * scale);
}

// Zeros around an image stand for the outside; a position beyond them is clamped onto them.
constexpr int kBorder = 2;

DAQAKD_INLINE int clamp_to_border(int position, int side) {
  return position > -kBorder ? (position < side ? position : side) : -kBorder;
}

// NaN is outside.
DAQAKD_INLINE float clamp_to_border(float position, float side) {
  const float after = position > float(-kBorder) ? position : float(-kBorder);
  return after < side ? after : side;
}

// Pillow's affine map: column a x + b y + c (or row) in units of 2^-16 pixels, modulo 2^32.
DAQAKD_INLINE int fixed_position(const int32_t* map, int x, int y) {  // [3]
  return int32_t(
             uint32_t(map[0]) * uint32_t(x) + uint32_t(map[1]) * uint32_t(y) + uint32_t(map[2])) >>
         16;
}

// torchvision's affine grid: where an output pixel lies along an axis of `side` pixels.
DAQAKD_INLINE float grid_position(const float* map, float x, float y, float side) {  // [3]
  const float at = fused(y, map[1], x * map[0]) + map[2];
  return fused(at + 1.0f, side * 0.5f, -0.5f);
}

// The distance of pixel i from the middle of a side.
DAQAKD_INLINE float from_middle(int i, int side) { return float(i) - float(side - 1) * 0.5f; }

// Rounded down, for |v| < 2^31.
DAQAKD_INLINE int floor_int(float v) { return int(std::floor(v)); }

// The weights of the four neighbours in a bilinear look-up.
struct Corners {
  DAQAKD_INLINE Corners(float down, float right)  // distances from the top left neighbour
      : top_left((1 - down) * (1 - right)),
        top_right((1 - down) * right),
        bottom_left(down * (1 - right)),
        bottom_right(down * right) {}

  DAQAKD_INLINE float sum(float tl, float tr, float bl, float br) const {
    const float top = fused(tr, top_right, tl * top_left);
    return fused(br, bottom_right, fused(bl, bottom_left, top));
  }

  float top_left, top_right, bottom_left, bottom_right;
};

}  // namespace daqakd
