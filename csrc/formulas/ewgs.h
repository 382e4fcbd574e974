#pragma once

#include <cstdint>

#include "../common/math.h"
#include "elementwise.h"

namespace daqakd {

// EWGS, Lee et al. 2021, equations 1 to 7, in the compute type T.
template <class T>
struct EWGSRange {
  DAQAKD_INLINE EWGSRange(T lower, T upper, int64_t bits)
      : lower(lower), width(upper - lower), levels(T((1 << bits) - 1)) {}

  T lower;
  Step<T> width;
  Divisor<T> levels;
};

template <class T>
struct EWGSGradient {
  T dx, dlower, dupper;  // dlower, dupper: what one element adds
};

template <class T>
DAQAKD_INLINE T ewgs_level(T normalized, const EWGSRange<T>& range) {
  return range.levels.divide(round_half_even(normalized * range.levels.value));
}

template <class T>
DAQAKD_INLINE T ewgs_quantize(T x, const EWGSRange<T>& range) {
  return ewgs_level(clip(range.width.divide(x - range.lower), T(0), T(1)), range);
}

template <class T>
DAQAKD_INLINE EWGSGradient<T> ewgs_gradient(T grad, T x, const EWGSRange<T>& range, T delta) {
  const T position = range.width.divide(x - range.lower);
  const T normalized = clip(position, T(0), T(1));
  const T error = normalized - ewgs_level(normalized, range);
  const T through = range.width.divide(grad + delta * std::fabs(grad) * error);
  const T dx = keep_within(through, position, T(0), T(1));
  return {dx, dx * (normalized - T(1)), -dx * normalized};
}

// prepare() is the device's: the CPU holds the range, CUDA the tensors it follows from.
template <class T>
struct EWGS {
  static constexpr int kBits = 0, kSums = 2;
  static constexpr bool kHasDx = true;

  struct Prepared {
    EWGSRange<T> range;
    T delta;
  };
  DAQAKD_INLINE T value(T x, const Prepared& all) const { return ewgs_quantize(x, all.range); }
  DAQAKD_INLINE Contribution<T, 2> gradient(T g, T x, const Prepared& all) const {
    const EWGSGradient<T> one = ewgs_gradient(g, x, all.range, all.delta);
    return {one.dx, {one.dlower, one.dupper}};
  }
};

}  // namespace daqakd
