#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "bits.h"

namespace daqakd {

// What exp and log take per type. Multiples of `high`, a short ln(2), are exact; `low` is the rest.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Bits = uint32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23: adding it leaves an integer below
  static constexpr float kHigh = 355.0f / 512, kLow = float(0.69314718055994531 - 355.0 / 512);
  static constexpr float kLowest = -87.3365402f;  // exp is a normal number from here on
  static constexpr Bits kHalfRoot = 0x3f3504f3u;  // sqrt(1/2)
  // (e^r - 1 - r) / r^2 for |r| <= ln(2) / 2 by the exchange algorithm of Remez, error 7.5e-9
  static constexpr float kExp[] = {
      0.5000000027f, 0.1666657665f, 0.04166637408f, 0.008363235073f, 0.001394121835f};
  // 2 * (atanh(s) / s - 1) / s^2 in s^2 for s <= 0.1716, likewise, error 5.5e-9
  static constexpr float kLog[] = {0.6666668532f, 0.3998869583f, 0.2958308777f};
};

template <>
struct ExpConstants<double> {
  using Bits = uint64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kMagic = 6755399441055744.0;
  static constexpr double kHigh = 0x1.62e42fefap-1, kLow = 1.6465949582897081281e-12;
  static constexpr double kLowest = -708.39641853226408;
  static constexpr Bits kHalfRoot = 0x3fe6a09e667f3bcdu;
  static constexpr double kExp[] = {
      // 1 / 2!, 1 / 3!, ...
      0.5,         1.0 / 6,      1.0 / 24,      1.0 / 120,      1.0 / 720,       1.0 / 5040,
      1.0 / 40320, 1.0 / 362880, 1.0 / 3628800, 1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800};
  static constexpr double kLog[] = {2.0 / 3,  2.0 / 5,  2.0 / 7,  2.0 / 9,  2.0 / 11, 2.0 / 13,
                                    2.0 / 15, 2.0 / 17, 2.0 / 19, 2.0 / 21, 2.0 / 23};
};

template <class T, int N>
DAQAKD_INLINE T polynomial(const T (&coefficients)[N], T x) {
  T p = coefficients[N - 1];
  for (int i = N - 2; i >= 0; --i) p = p * x + coefficients[i];
  return p;
}

// exp(x) for x <= 88 (float) or 709 (double) within 1.1 units in the last place, by additions and
// multiplications, so that loops vectorize and every instruction set has the same bits:
// 2^n * exp(r), |r| <= ln(2) / 2. Results below the normal numbers are 0; NaN stays NaN.
template <class T>
DAQAKD_INLINE T exp_of(T x) {
  using K = ExpConstants<T>;
#if defined(__CUDA_ARCH__)
  return exp(x);  // a few instructions around the GPU's own 2^x
#else
  const T shifted = x * T(1.4426950408889634) + K::kMagic, n = shifted - K::kMagic;
  const T r = (x - n * K::kHigh) - n * K::kLow;
  const auto bits = bits_as<typename K::Bits>(shifted);  // n stands in its low bits
  const T scale = bits_as<T>((bits + K::kBias) << K::kMantissa);
  const T value = ((polynomial(K::kExp, r) * (r * r) + r) + T(1)) * scale;
  return x < K::kLowest ? T(0) : value;
#endif
}

// log(x) for normal x > 0 within 1 unit in the last place, likewise: k * ln(2) + log(1 + f),
// log(1 + f) = f - s * (f - 2 * (atanh(s) / s - 1)), s = f / (2 + f); Inf and NaN stay.
template <class T>
DAQAKD_INLINE T log_of(T x) {
  using K = ExpConstants<T>;
#if defined(__CUDA_ARCH__)
  return log(x);
#else
  using Bits = typename K::Bits;
  constexpr Bits kOne = Bits(K::kBias) << K::kMantissa;
  const Bits bits = bits_as<Bits>(x);
  const Bits exponent = ((bits - K::kHalfRoot + kOne) >> K::kMantissa) - K::kBias;  // wraps
  const T k = bits_as<T>(bits_as<Bits>(K::kMagic) + exponent) - K::kMagic;
  const T f = bits_as<T>(bits - (exponent << K::kMantissa)) - T(1);
  const T s = f / (T(2) + f), square = s * s;
  const T rest = k * K::kLow - s * (f - square * polynomial(K::kLog, square));
  return x <= std::numeric_limits<T>::max() ? (rest + f) + k * K::kHigh : x;
#endif
}

}  // namespace daqakd
