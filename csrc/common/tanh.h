#pragma once

#include <cmath>
#include <cstdint>

#include "bits.h"
#include "math.h"

namespace daqakd {

// 2^n for |n| <= 126 given as v = n + 1.5 * 2^23: n stands in the low bits of v.
DAQAKD_INLINE float power_of_two(float v) {
  return bits_as<float>((bits_as<uint32_t>(v) + 127u) << 23);
}

// tanh within 3 units in the last place, by additions, multiplications and one division, so that
// loops vectorize and every target has the same bits: e / (e + 2) where e = exp(2|x|) - 1
// = 2^n * (exp(r) - 1) + (2^n - 1), |r| <= ln(2) / 2; beyond 10 it is 1.
DAQAKD_INLINE float tanh_of(float x) {
  const float magnitude = std::fabs(x), y = magnitude > 10.0f ? 20.0f : 2.0f * magnitude;
  const float shifted = y * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
  // ln(2) in two parts, the first so short that n times it is exact
  constexpr float kHigh = 355.0f / 512, kLow = float(0.69314718055994531 - 355.0 / 512);
  const float r = (y - n * kHigh) - n * kLow;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  const float scale = power_of_two(shifted), e = scale * (p * (r * r) + r) + (scale - 1.0f);
  const float t = e / (e + 2.0f);
  return x < 0.0f ? -t : t;
}

DAQAKD_INLINE double tanh_of(double x) { return std::tanh(x); }

}  // namespace daqakd
