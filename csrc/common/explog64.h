#pragma once

#include <cmath>
#include <cstdint>

#include "bits.h"
#include "math.h"

namespace daqakd {

// exp, log and log1p of doubles within 3 units in the last place, by additions, multiplications and
// divisions alone: loops vectorize, and CPU and GPU have the same bits.

constexpr double kIntegers = 6755399441055744.0;  // 1.5 * 2^52: its neighbours are integers
// ln(2) in two parts, the first so short that its multiples are exact
constexpr double kLn2High = 762123384785.0 / (1ll << 40), kLn2Low = 7.37100256516779890e-13;

// e^x for x <= 0, 0 below -708: 2^n * e^r by Taylor's series, |r| <= ln(2) / 2.
DAQAKD_INLINE double exp64(double x) {
  const double shifted = x * 1.44269504088896340736 + kIntegers, n = shifted - kIntegers;
  const double r = (x - n * kLn2High) - n * kLn2Low;
  double p = 1.0 / 6227020800;
  p = p * r + 1.0 / 479001600;
  p = p * r + 1.0 / 39916800;
  p = p * r + 1.0 / 3628800;
  p = p * r + 1.0 / 362880;
  p = p * r + 1.0 / 40320;
  p = p * r + 1.0 / 5040;
  p = p * r + 1.0 / 720;
  p = p * r + 1.0 / 120;
  p = p * r + 1.0 / 24;
  p = p * r + 1.0 / 6;
  p = p * r + 0.5;
  const double scale = bits_as<double>((bits_as<uint64_t>(shifted) + 1023) << 52);
  return x < -708.0 ? 0.0 : scale * (1.0 + (r + r * r * p));  // NaN stays NaN
}

// ln(v) as n * ln(2) + 2 * atanh(s), s = (m - 1) / (m + 1), v = 2^n * m, m in [sqrt(1/2), sqrt(2)].
DAQAKD_INLINE double log64(double v) {
  const bool subnormal = v < 0x1p-1022;
  const uint64_t bits = bits_as<uint64_t>(subnormal ? v * 0x1p54 : v);
  const double whole = bits_as<double>(bits & 0x000fffffffffffffull | 0x3ff0000000000000ull);
  const double exponent =
      bits_as<double>((bits >> 52) + 0x4338000000000000ull) - (kIntegers + 1023.0);
  const bool large = whole > 1.41421356237309505;
  const double m = large ? 0.5 * whole : whole;
  const double n = exponent + (large ? 1.0 : 0.0) - (subnormal ? 54.0 : 0.0);
  const double f = m - 1.0, s = f / (m + 1.0), z = s * s;
  double p = 1.0 / 21;
  p = p * z + 1.0 / 19;
  p = p * z + 1.0 / 17;
  p = p * z + 1.0 / 15;
  p = p * z + 1.0 / 13;
  p = p * z + 1.0 / 11;
  p = p * z + 1.0 / 9;
  p = p * z + 1.0 / 7;
  p = p * z + 1.0 / 5;
  p = p * z + 1.0 / 3;
  const double result = n * kLn2High + (n * kLn2Low + (2.0 * s + 2.0 * s * z * p));
  const double special = v == 0.0 ? -INFINITY : (v > 0.0 ? v : double(NAN));
  return v > 0.0 && v < INFINITY ? result : special;
}

// ln(1 + v): the second term is what 1 + v lost.
DAQAKD_INLINE double log1p64(double v) {
  const double u = 1.0 + v;
  const double lost = (v - (u - 1.0)) / u;
  return u > 0.0 && u < INFINITY ? log64(u) + lost : log64(u);
}

}  // namespace daqakd
