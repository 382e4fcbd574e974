#pragma once

#include <cmath>
#include <cstdint>

#include "../common/math.h"
#include "dorefa.h"
#include "ewgs.h"
#include "lsq.h"
#include "method.h"
#include "pact.h"

namespace daqakd {

// Batch norm, then what is added, an activation and a quantizer, in the compute type T.
template <class T>
struct Norm {  // of one channel
  Norm() = default;
  DAQAKD_INLINE Norm(T mean, T invstd, T weight, T bias)
      : mean(mean), factor(weight * invstd), shift(bias) {}

  DAQAKD_INLINE T value(T centred) const { return centred * factor + shift; }

  T mean, factor, shift;
};

enum class Activation : int64_t { none = 0, relu = 1, relu6 = 2 };

// A bound that is NaN is none: no comparison with it holds.
template <class T>
struct ActivationRange {
  explicit ActivationRange(Activation kind)
      : low(kind == Activation::none ? T(NAN) : T(0)),
        high(kind == Activation::relu6 ? T(6) : T(NAN)) {}

  DAQAKD_INLINE T value(T u) const { return clip(u, low, high); }
  DAQAKD_INLINE T gradient(T g, T u) const { return u <= low ? T(0) : (u >= high ? T(0) : g); }

  T low, high;
};

// What a channel's gradients need of the sums of du and of du * (x - mean) over its n elements.
template <class T>
struct NormGradient {
  NormGradient() = default;
  DAQAKD_INLINE NormGradient(double dbias, double dcentred, double invstd, double n)
      : mean(T(dbias / n)), slope(T(dcentred * invstd * invstd / n)) {}

  // Without a slope an infinite input pulls nothing.
  DAQAKD_INLINE T value(T du, T centred, const Norm<T>& norm) const {
    return norm.factor * (du - mean - (slope == T(0) ? T(0) : centred * slope));
  }

  T mean, slope;
};

// The quantizers by the value they quantize: no mask, for it can be made again.
template <class T>
struct NoQuantizer {
  static constexpr int kSums = 0;
  DAQAKD_INLINE T value(T t) const { return t; }
  DAQAKD_INLINE Contribution<T, 0> gradient(T g, T) const { return {g, {}}; }
};

template <class T>
struct LSQOfValue {
  static constexpr int kSums = 1;
  DAQAKD_INLINE T value(T t) const { return lsq_quantize(t, step, range); }
  DAQAKD_INLINE Contribution<T, 1> gradient(T g, T t) const {
    const LSQGradient<T> one = lsq_gradient(g, t, step, range);
    return {one.dx, {one.ds}};
  }

  Step<T> step;
  LSQRange<T> range;
};

template <class T>
struct PACTOfValue {
  static constexpr int kSums = 1;
  DAQAKD_INLINE PACTOfValue(T alpha, const PACTRange<T>& range)
      : level(alpha, range), range(range), lost(range.lowest < T(0) ? level.low : T(NAN)) {}
  DAQAKD_INLINE T value(T t) const { return pact_quantize(t, level, range); }
  DAQAKD_INLINE Contribution<T, 1> gradient(T g, T t) const {
    const T dx = t > level.low ? (t < level.high ? g : T(0)) : T(0);
    T dalpha = t >= level.high ? g : T(0);
    dalpha = t <= lost ? -g : dalpha;
    return {dx, {t == t ? dalpha : T(NAN)}};
  }

  PACTLevel<T> level;
  PACTRange<T> range;
  T lost;  // up to here alpha loses the gradient; NaN where unsigned
};

template <class T>
struct DoReFaOfValue {
  static constexpr int kSums = 0;
  DAQAKD_INLINE T value(T t) const { return dorefa_quantize(t, range); }
  DAQAKD_INLINE Contribution<T, 0> gradient(T g, T t) const {
    return {keep_within(g, t, range.low, T(1)), {}};
  }

  DoReFaRange<T> range;
};

template <class T>
struct EWGSOfValue {
  static constexpr int kSums = 2;
  DAQAKD_INLINE T value(T t) const { return ewgs_quantize(t, range); }
  DAQAKD_INLINE Contribution<T, 2> gradient(T g, T t) const {
    const EWGSGradient<T> one = ewgs_gradient(g, t, range, delta);
    return {one.dx, {one.dlower, one.dupper}};
  }

  EWGSRange<T> range;
  T delta;
};

}  // namespace daqakd
