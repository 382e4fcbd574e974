#pragma once

#include <cstdint>

#include "../common/math.h"

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
  T dx, dlower, dupper;  // the ends are one element's shares
};

template <class T>
DAQAKD_INLINE T ewgs_level(T unit, const EWGSRange<T>& range) {
  return range.levels.divide(round_half_even(unit * range.levels.value));
}

template <class T>
DAQAKD_INLINE T ewgs_quantize(T x, const EWGSRange<T>& range) {
  return ewgs_level(clip(range.width.divide(x - range.lower), T(0), T(1)), range);
}

template <class T>
DAQAKD_INLINE EWGSGradient<T> ewgs_gradient(T grad, T x, const EWGSRange<T>& range, T delta) {
  const T place = range.width.divide(x - range.lower), unit = clip(place, T(0), T(1));
  const T error = unit - ewgs_level(unit, range);
  const T through = range.width.divide(grad + delta * std::fabs(grad) * error);
  const T dx = keep_within(through, place, T(0), T(1));
  return {dx, dx * (unit - T(1)), -dx * unit};
}

}  // namespace daqakd
