#pragma once

#include <cmath>
#include <cstdint>

#include "../common/math.h"
#include "elementwise.h"

namespace daqakd {

// PACT, Choi et al. 2018, equations 1 to 3, in the compute type T.
template <class T>
struct PACTRange {
  PACTRange(int64_t bits, bool is_signed)
      : lowest(is_signed ? -T((1 << (bits - 1)) - 1) : T(0)),
        highest(is_signed ? -lowest : T((1 << bits) - 1)) {}

  T lowest, highest;  // codes
};

// A clipping level, kept positive, and what follows from it.
template <class T>
struct PACTLevel {
  PACTLevel() = default;
  DAQAKD_INLINE PACTLevel(T alpha, const PACTRange<T>& range)
      : high(at_least_smallest(alpha)),
        low(range.lowest < T(0) ? -high : T(0)),
        step(high / range.highest) {}

  T high, low;
  Divisor<T> step;
};

// What backward needs to know of an element, in 2 bits; kNoCode is no element's.
enum PACTCode : uint8_t { kBelow = 0, kInside = 1, kAbove = 2, kNotANumber = 3, kNoCode = 4 };

template <class T>
DAQAKD_INLINE T pact_quantize(T x, const PACTLevel<T>& level, const PACTRange<T>& range) {
  return round_half_even(clip(level.step.divide(x), range.lowest, range.highest)) *
         level.step.value;
}

template <class T>
DAQAKD_INLINE uint8_t pact_code(T x, const PACTLevel<T>& level) {
  return uint8_t(x != x ? 3 : int(x > level.low) + int(x >= level.high));
}

template <class T>
struct PACT {
  static constexpr int kBits = 2;

  DAQAKD_INLINE PACTLevel<T> prepare(T alpha) const { return {alpha, range}; }
  DAQAKD_INLINE T value(T x, const PACTLevel<T>& level) const {
    return pact_quantize(x, level, range);
  }
  DAQAKD_INLINE uint8_t code(T x, const PACTLevel<T>& level) const { return pact_code(x, level); }

  PACTRange<T> range;
};

template <class T>
struct PACTGradient {
  T dx, dalpha;  // dalpha: what one element adds
};

// subtracted: the code whose gradient dalpha loses, kBelow when signed, else kNoCode. Choices one
// after another become blends.
template <class T, class Code>
DAQAKD_INLINE PACTGradient<T> pact_gradient(T grad, Code code, Code subtracted) {
  T dalpha = code == kAbove ? grad : T(0);
  dalpha = code == subtracted ? -grad : dalpha;
  dalpha = code == kNotANumber ? T(NAN) : dalpha;
  return {code == kInside ? grad : T(0), dalpha};
}

}  // namespace daqakd
