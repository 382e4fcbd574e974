#pragma once

#include <cstdint>

#include "../common/math.h"
#include "../common/tanh.h"

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

// The largest |tanh(w)| and what a level costs.
template <class T>
struct DoReFaWeights {
  DAQAKD_INLINE DoReFaWeights(T maximum, int64_t bits)
      : maximum(maximum), twice(T(2) * maximum), levels(T((1 << bits) - 1)) {}

  T maximum;
  Divisor<T> twice, levels;
};

template <class T>
DAQAKD_INLINE T dorefa_weight(T w, const DoReFaWeights<T>& all) {
  const T unit = all.maximum == T(0) ? T(0.5) : all.twice.divide(tanh_of(w)) + T(0.5);
  return T(2) * all.levels.divide(round_half_even(unit * all.levels.value)) - T(1);
}

// `share` is what each of the largest weights gets of the maximum's gradient; 0 when detached.
template <class T>
DAQAKD_INLINE T dorefa_weight_gradient(T grad, T w, const Divisor<T>& maximum, T share) {
  const T t = tanh_of(w);
  const T extra = std::fabs(t) == maximum.value ? dorefa_sign(t) * share : T(0);
  return maximum.value == T(0) ? T(0) : (maximum.divide(grad) + extra) * (T(1) - t * t);
}

}  // namespace daqakd
