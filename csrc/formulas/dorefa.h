#pragma once

#include <cstdint>

#include "../common/math.h"
#include "../common/tanh.h"
#include "elementwise.h"

namespace daqakd {

// DoReFa-Net, Zhou et al. 2016, equations 5 to 11, in the compute type T.
template <class T>
struct DoReFaRange {
  DoReFaRange(int64_t bits, bool is_signed)
      : low(is_signed ? T(-1) : T(0)), levels(T((1 << (is_signed ? bits - 1 : bits)) - 1)) {}

  T low;
  Divisor<T> levels;
};

template <class T>
DAQAKD_INLINE T dorefa_quantize(T x, const DoReFaRange<T>& range) {
  return range.levels.divide(round_half_even(clip(x, range.low, T(1)) * range.levels.value));
}

// Whether dx passes: the code of the 1-bit mask.
template <class T>
DAQAKD_INLINE uint8_t dorefa_code(T x, const DoReFaRange<T>& range) {
  return uint8_t(int(x >= range.low) & int(x <= T(1)));
}

template <class T>
struct DoReFaActivation : Unparameterized {
  static constexpr int kBits = 1;

  DAQAKD_INLINE explicit DoReFaActivation(const DoReFaRange<T>& range) : range(range) {}
  DAQAKD_INLINE T value(T x, Prepared) const { return dorefa_quantize(x, range); }
  DAQAKD_INLINE uint8_t code(T x, Prepared) const { return dorefa_code(x, range); }

  DoReFaRange<T> range;
};

template <class T>
struct DoReFaActivationBackward : Unparameterized {
  static constexpr int kBits = 1, kSums = 0;
  static constexpr bool kHasDx = true;

  template <class Code>
  DAQAKD_INLINE Contribution<T, 0> gradient(T g, Code code, Prepared) const {
    return {code != 0 ? g : T(0), {}};
  }
};

// sign(0) = +1; NaN stays NaN.
template <class T>
DAQAKD_INLINE T dorefa_sign(T w) {
  return w < T(0) ? T(-1) : (w >= T(0) ? T(1) : w);
}

// 1 bit: `scale` is mean|w|.
template <class T>
DAQAKD_INLINE T dorefa_binary(T w, T scale) {
  return dorefa_sign(w) * scale;
}

// The largest |tanh(w)| of a tensor, and the divisors that quantize its weights.
template <class T>
struct DoReFaWeightRange {
  DAQAKD_INLINE DoReFaWeightRange(T maximum, int64_t bits)
      : maximum(maximum), twice(T(2) * maximum), levels(T((1 << bits) - 1)) {}

  T maximum;
  Divisor<T> twice, levels;
};

template <class T>
DAQAKD_INLINE T dorefa_weight(T w, const DoReFaWeightRange<T>& all) {
  const T normalized = all.maximum == T(0) ? T(0.5) : all.twice.divide(tanh_of(w)) + T(0.5);
  return T(2) * all.levels.divide(round_half_even(normalized * all.levels.value)) - T(1);
}

// tie_gradient: what each of the largest weights gets of the maximum's gradient; 0 when detached.
template <class T>
DAQAKD_INLINE T dorefa_weight_gradient(T grad, T w, const Divisor<T>& maximum, T tie_gradient) {
  const T t = tanh_of(w);
  const T extra = std::fabs(t) == maximum.value ? dorefa_sign(t) * tie_gradient : T(0);
  return maximum.value == T(0) ? T(0) : (maximum.divide(grad) + extra) * (T(1) - t * t);
}

template <class T>
struct DoReFaWeight {
  static constexpr int kBits = 0;

  DAQAKD_INLINE DoReFaWeightRange<T> prepare(T maximum) const { return {maximum, bits}; }
  DAQAKD_INLINE T value(T w, const DoReFaWeightRange<T>& all) const {
    return dorefa_weight(w, all);
  }

  int64_t bits;
};

// prepare() is the device's: the CPU holds tie_gradient, CUDA the sums it follows from.
template <class T>
struct DoReFaWeightBackward {
  static constexpr int kBits = 0, kSums = 0;
  static constexpr bool kHasDx = true;

  struct Prepared {
    Divisor<T> maximum;
    T tie_gradient;
  };
  DAQAKD_INLINE Contribution<T, 0> gradient(T g, T w, const Prepared& all) const {
    return {dorefa_weight_gradient(g, w, all.maximum, all.tie_gradient), {}};
  }
};

// sum(g * tanh(w)), and how many weights are the largest.
template <class T>
struct DoReFaMaximumGradient {
  static constexpr int kBits = 0, kSums = 2;
  static constexpr bool kHasDx = false;

  DAQAKD_INLINE T prepare(T maximum) const { return maximum; }
  DAQAKD_INLINE Contribution<T, 2> gradient(T g, T w, T maximum) const {
    const T t = tanh_of(w);
    return {T(0), {g * t, std::fabs(t) == maximum ? T(1) : T(0)}};
  }
};

template <class T>
struct DoReFaBinary {
  static constexpr int kBits = 0;

  DAQAKD_INLINE T prepare(T scale) const { return scale; }
  DAQAKD_INLINE T value(T w, T scale) const { return dorefa_binary(w, scale); }
};

// mean_gradient: mean(g * sign(w)), 0 when detached.
template <class T>
struct DoReFaBinaryBackward {
  static constexpr int kBits = 0, kSums = 0;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE T prepare(T mean_gradient) const { return mean_gradient; }
  DAQAKD_INLINE Contribution<T, 0> gradient(T g, T w, T mean_gradient) const {
    return {g + dorefa_binary(w, mean_gradient), {}};
  }
};

// sum(g * sign(w)); with g = w it is sum|w|.
template <class T>
struct DoReFaSignedSum : Unparameterized {
  static constexpr int kBits = 0, kSums = 1;
  static constexpr bool kHasDx = false;

  DAQAKD_INLINE Contribution<T, 1> gradient(T g, T w, Prepared) const {
    return {T(0), {dorefa_binary(w, g)}};
  }
};

}  // namespace daqakd
