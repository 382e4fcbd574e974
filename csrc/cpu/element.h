#pragma once

#include <cstdint>
#include <type_traits>

#include "../common/bits.h"

namespace daqakd::cpu {

// Storage types of the host kernels, as bits: plain integer arithmetic vectorizes on every target.
struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;

DAQAKD_INLINE float load(float x) { return x; }
DAQAKD_INLINE double load(double x) { return x; }
DAQAKD_INLINE float load(BFloat16 x) { return bits_as<float>(uint32_t(x.bits) << 16); }

// Half has 10 mantissa and 5 exponent bits: exponents are rebased by 112 (Inf and NaN by 224),
// subnormals are integers in units of 2^-24.
DAQAKD_INLINE float load(Half x) {
  const uint32_t magnitude = x.bits & 0x7fffu, sign = uint32_t(x.bits & 0x8000u) << 16;
  const uint32_t rebased = (magnitude << 13) + (magnitude >= 0x7c00u ? 224u << 23 : 112u << 23);
  const uint32_t tiny = bits_as<uint32_t>(float(int32_t(magnitude)) * 0x1p-24f);
  return bits_as<float>(sign | (magnitude < 0x0400u ? tiny : rebased));
}

template <class T>
DAQAKD_INLINE T store(Compute<T> value) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    const uint32_t bits = bits_as<uint32_t>(value);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    return {uint16_t(value != value ? 0x7fc0u : rounded)};
  } else if constexpr (std::is_same_v<T, Half>) {
    const uint32_t bits = bits_as<uint32_t>(value), magnitude = bits & 0x7fffffffu;
    const uint32_t normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    // Adding 0.5 leaves the mantissa in units of 2^-24, rounded to nearest even by the addition.
    const uint32_t tiny =
        bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<uint32_t>(0.5f);
    const uint32_t finite = magnitude < (113u << 23) ? tiny : normal;
    const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    const uint32_t result = magnitude >= 0x477ff000u ? special : finite;
    return {uint16_t(result | ((bits >> 16) & 0x8000u))};
  } else {
    return value;
  }
}

// 16-bit elements pass through a small buffer: loops that also convert do not vectorize.
constexpr int kBlock = 256;

// n elements as numbers to compute with: x itself, or the buffer filled from it.
template <class T>
DAQAKD_INLINE const Compute<T>* widen(const T* __restrict__ x, int64_t n, Compute<T>* buffer) {
  if constexpr (std::is_same_v<T, Compute<T>>) {
    return x;
  } else {
    for (int64_t i = 0; i < n; ++i) buffer[i] = load(x[i]);
    return buffer;
  }
}

// Where to compute n elements: y itself, or the buffer, which narrow() then stores.
template <class T>
DAQAKD_INLINE Compute<T>* target(T* y, Compute<T>* buffer) {
  if constexpr (std::is_same_v<T, Compute<T>>)
    return y;
  else
    return buffer;
}

template <class T>
DAQAKD_INLINE void narrow(const Compute<T>* __restrict__ buffer, int64_t n, T* __restrict__ y) {
  if constexpr (!std::is_same_v<T, Compute<T>>)
    for (int64_t i = 0; i < n; ++i) y[i] = store<T>(buffer[i]);
}

}  // namespace daqakd::cpu
