#pragma once

#include <cmath>
#include <cstdint>

#include "../common/math.h"
#include "elementwise.h"

namespace daqakd {

// SEQ of ParetoQ, Liu et al. 2025, with k levels and the step s = 2 alpha / k, in the compute type
// T. Levels are -(k - 1) / 2 to (k - 1) / 2 in whole steps.
template <class T>
struct SEQRange {
  T end;   // the highest level
  T half;  // 1/2 where levels lie in the middle of whole numbers, else 0
  T pass;  // dx passes where |x / s| <= pass
};

template <class T>
struct SEQGradient {
  T dx, ds;  // ds: what one element adds, before the gradient scale
};

// The middle of v's whole step where levels lie there, else the nearest whole number: a rounding by
// 1/2 to either side, so that no tiny v loses its sign by a shift before it.
template <class T>
DAQAKD_INLINE T seq_level(T v, const SEQRange<T>& range) {
  const T clipped = clip(v, -range.end, range.end), rounded = round_half_even(clipped);
  return rounded > clipped ? rounded - range.half : rounded + range.half;
}

template <class T>
DAQAKD_INLINE T seq_quantize(T x, const Step<T>& s, const SEQRange<T>& range) {
  return seq_level(s.divide(x), range) * s.value;
}

template <class T>
DAQAKD_INLINE SEQGradient<T> seq_gradient(T grad, T x, const Step<T>& s, const SEQRange<T>& range) {
  const T v = s.divide(x), inside = keep_within(v, v, -range.pass, range.pass);
  return {keep_within(grad, v, -range.pass, range.pass), grad * (seq_level(v, range) - inside)};
}

template <class T>
struct SEQ {
  static constexpr int kBits = 0, kSums = 1;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE Step<T> prepare(T step) const { return Step<T>(step); }
  DAQAKD_INLINE T value(T x, const Step<T>& s) const { return seq_quantize(x, s, range); }
  DAQAKD_INLINE Contribution<T, 1> gradient(T g, T x, const Step<T>& s) const {
    const SEQGradient<T> one = seq_gradient(g, x, s, range);
    return {one.dx, {one.ds}};
  }

  SEQRange<T> range;
};

// dx passes below k / 2 steps: up to the number before it.
template <class T>
SEQRange<T> seq_range(int64_t levels) {
  const T edge = T(levels) / 2;
  return {T(levels - 1) / 2, T(levels % 2 == 0 ? 0.5 : 0.0), std::nextafter(edge, T(0))};
}

}  // namespace daqakd
