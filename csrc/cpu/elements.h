#pragma once

#include "../common/types.h"
#include "element.h"

namespace daqakd::cpu {

// Elements of any floating-point type.
struct Elements {
  void* data;
  ScalarType type;
};

template <class T, class C>
DAQAKD_INLINE void read_as(const void* from, int64_t at, int64_t n, C* __restrict__ to) {
  const T* __restrict__ x = static_cast<const T*>(from) + at;
  for (int64_t i = 0; i < n; ++i) to[i] = C(load(x[i]));
}

template <class C>
DAQAKD_INLINE void read(const Elements& from, int64_t at, int64_t n, C* __restrict__ to) {
  switch (from.type) {
    case ScalarType::Half:
      return read_as<Half>(from.data, at, n, to);
    case ScalarType::BFloat16:
      return read_as<BFloat16>(from.data, at, n, to);
    case ScalarType::Double:
      return read_as<double>(from.data, at, n, to);
    default:
      return read_as<float>(from.data, at, n, to);
  }
}

template <class T>
DAQAKD_INLINE void write_as(const Compute<T>* __restrict__ x, int64_t at, int64_t n, void* to) {
  T* __restrict__ y = static_cast<T*>(to) + at;
  for (int64_t i = 0; i < n; ++i) y[i] = store<T>(x[i]);
}

DAQAKD_INLINE void write(const double* x, int64_t at, int64_t n, const Elements& to) {
  write_as<double>(x, at, n, to.data);
}

DAQAKD_INLINE void write(const float* x, int64_t at, int64_t n, const Elements& to) {
  if (to.type == ScalarType::Half) return write_as<Half>(x, at, n, to.data);
  if (to.type == ScalarType::BFloat16) return write_as<BFloat16>(x, at, n, to.data);
  write_as<float>(x, at, n, to.data);
}

}  // namespace daqakd::cpu
