#pragma once

#include <cmath>
#include <cstdint>

#include "../common/bits.h"
#include "../common/math.h"
#include "elementwise.h"
#include "method.h"

namespace daqakd {

// The integer codes of a quantizer. A value is code * step / levels by the quantizer's own
// operations: a method has one of the two, the other is 1 and changes nothing.
template <class T>
struct CodeRange {
  CodeRange(Method method, int64_t bits, bool is_signed)
      : highest(T((1 << (is_signed ? bits - 1 : bits)) - 1)),
        lowest(
            !is_signed              ? T(0)
            : method == Method::lsq ? -highest - T(1)
                                    : -highest),
        parts(method == Method::pact ? highest : T(1)),
        levels(method == Method::lsq || method == Method::pact ? T(1) : highest) {}

  T highest, lowest;
  T parts;  // steps of PACT's alpha
  T levels;
};

template <class T>
struct CodeGrid {
  DAQAKD_INLINE CodeGrid(T parameter, const CodeRange<T>& range)
      : lowest(range.lowest),
        highest(range.highest),
        step(at_least_smallest(parameter) / range.parts),
        levels(range.levels) {}

  // Codes here count from the lowest one.
  DAQAKD_INLINE T value(T code) const { return levels.divide((code + lowest) * step.value); }

  // The code of the level nearest to y; NaN has code 0.
  DAQAKD_INLINE T nearest(T y) const {
    const T position = step.divide(y * levels.value);
    const T known = position == position ? position : lowest;
    return round_half_even(clip(known, lowest, highest)) - lowest;
  }

  // Whether two levels can be one number of 16 bits.
  DAQAKD_INLINE bool is_dense() const {
    return highest - lowest > T(127) || step.value < T(0x1p-24);
  }

  // The code on the other side of y.
  DAQAKD_INLINE T beyond(T code, T value, T y) const {
    return clip(code + std::copysign(T(1), y - value), T(0), highest - lowest);
  }

  T lowest, highest;
  Divisor<T> step, levels;
};

// Which of two codes y had, given their values as stored in 16 bits: where the nearest level is
// stored as another number than y, or small ones as -0, it was the other.
DAQAKD_INLINE float code_of(float y, float nearest, float value, float other, float other_value) {
  const uint32_t wanted = bits_as<uint32_t>(y);
  const float matching = bits_as<uint32_t>(other_value) == wanted ? other : nearest;
  return bits_as<uint32_t>(value) == wanted ? nearest : matching;
}

// Bits that a packed code takes: 1, 2, 4 or 8, the least that hold it.
inline int slot_bits(int64_t bits) { return bits <= 2 ? int(bits) : bits <= 4 ? 4 : 8; }

}  // namespace daqakd
