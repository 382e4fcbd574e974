#pragma once

#include <cmath>

#include "inline.h"

namespace daqakd {

constexpr double kSmallest = 0x1p-30;  // steps, clipping levels and ranges are at least this

// NaN stays NaN.
template <class T>
DAQAKD_INLINE T at_least_smallest(T parameter) {
  return parameter < T(kSmallest) ? T(kSmallest) : parameter;
}

// x / s from r = 1 / s, correctly rounded for 2^-100 <= |x| and s <= 2^100: two corrections by the
// exact remainder [Markstein 1990]. Quotients above 2^20 stay as they are: a remainder of infinity
// would be NaN, and every caller clips far below.
template <class T>
DAQAKD_INLINE T quotient(T x, T s, T r) {
  const T rough = x * r;
  const T near = std::fma(std::fma(-rough, s, x), r, rough);
  const T exact = std::fma(std::fma(-near, s, x), r, near);
  return std::fabs(rough) <= T(1 << 20) ? exact : rough;
}

// Five multiply-adds replace a GPU's division, which branches and calls; both round correctly, so
// host and device have the same bits.
template <class T>
struct Divisor {
  Divisor() = default;
  DAQAKD_INLINE explicit Divisor(T value) : value(value), reciprocal(1 / value) {}

  DAQAKD_INLINE T divide(T x) const {
#if defined(__CUDA_ARCH__)
    return quotient(x, value, reciprocal);
#else
    return x / value;
#endif
  }

  T value, reciprocal;
};

// A quantizer's step, kept positive.
template <class T>
struct Step : Divisor<T> {
  Step() = default;
  DAQAKD_INLINE explicit Step(T step) : Divisor<T>(at_least_smallest(step)) {}
};

// NaN stays NaN. Each choice is one instruction: a maximum, a minimum.
template <class T>
DAQAKD_INLINE T clip(T v, T low, T high) {
  const T above = low > v ? low : v;
  return high < above ? high : above;
}

// value where low <= v <= high, else 0; 0 for NaN. Nested choices become blends on every target.
template <class T>
DAQAKD_INLINE T keep_within(T value, T v, T low, T high) {
  return v >= low ? (v <= high ? value : T(0)) : T(0);
}

// Half to even for |v| < 2^22 (float), 2^51 (double), by the same two additions on every target:
// beyond 1.5 * 2^mantissa a number has no fraction bits. A negative result of zero becomes +0.
DAQAKD_INLINE float round_half_even(float v) { return (v + 12582912.0f) - 12582912.0f; }
DAQAKD_INLINE double round_half_even(double v) {
  return (v + 6755399441055744.0) - 6755399441055744.0;
}

}  // namespace daqakd
