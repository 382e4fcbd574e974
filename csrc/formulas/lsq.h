#pragma once

#include <cmath>
#include <cstdint>

#include "../common/math.h"
#include "elementwise.h"

namespace daqakd {

// LSQ, Esser et al. 2020, equations 1 to 3, in the compute type T.
template <class T>
struct LSQRange {
  T qmin, qmax;           // lowest and highest code
  T pass_low, pass_high;  // dx passes where pass_low <= x / s <= pass_high
};

template <class T>
struct LSQGradient {
  T dx, ds;  // ds: what one element adds, before the gradient scale
};

template <class T>
DAQAKD_INLINE T lsq_quantize(T x, const Step<T>& s, const LSQRange<T>& range) {
  return round_half_even(clip(s.divide(x), range.qmin, range.qmax)) * s.value;
}

template <class T>
DAQAKD_INLINE LSQGradient<T> lsq_gradient(T grad, T x, const Step<T>& s, const LSQRange<T>& range) {
  const T v = s.divide(x);
  const T code = round_half_even(clip(v, range.qmin, range.qmax));
  const T inside = keep_within(v, v, range.pass_low, range.pass_high);
  return {keep_within(grad, v, range.pass_low, range.pass_high), grad * (code - inside)};
}

template <class T>
struct LSQ {
  static constexpr int kBits = 0, kSums = 1;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE Step<T> prepare(T step) const { return Step<T>(step); }
  DAQAKD_INLINE T value(T x, const Step<T>& s) const { return lsq_quantize(x, s, range); }
  DAQAKD_INLINE Contribution<T, 1> gradient(T g, T x, const Step<T>& s) const {
    const LSQGradient<T> one = lsq_gradient(g, x, s, range);
    return {one.dx, {one.ds}};
  }

  LSQRange<T> range;
};

enum class STE : int64_t { closed = 0, open = 1, rounded = 2 };

// Every convention is a closed interval of v: an open end is the neighbouring number, and a code
// rounds into the range up to the half step beyond it, ties going to the even code.
template <class T>
LSQRange<T> lsq_range(long qmin, long qmax, STE ste) {
  LSQRange<T> range{T(qmin), T(qmax), T(qmin), T(qmax)};
  const T up = T(INFINITY);
  if (ste == STE::rounded) {
    range.pass_low -= T(0.5);
    range.pass_high += T(0.5);
  }
  if (ste == STE::open || (ste == STE::rounded && qmin % 2 != 0))
    range.pass_low = std::nextafter(range.pass_low, up);
  if (ste == STE::open || (ste == STE::rounded && qmax % 2 != 0))
    range.pass_high = std::nextafter(range.pass_high, -up);
  return range;
}

}  // namespace daqakd
