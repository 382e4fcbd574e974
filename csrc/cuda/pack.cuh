#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "device.cuh"

namespace daqakd::cuda {

// Elements of one 16-byte access.
template <class T>
constexpr int kVector = 16 / sizeof(T);

template <class T, int V>
struct alignas(V * sizeof(T)) Pack {
  T value[V];
};

// 16 bytes at once. Stores are spelled out, for the compiler would split them into elements; no
// kernel reads what it writes, so loads may pass them.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_pack(const T* address) {
  if constexpr (V == 1) {
    return {*address};
  } else {
    Pack<T, V> pack;
    const uint4 bits = *reinterpret_cast<const uint4*>(address);
    memcpy(&pack, &bits, sizeof bits);
    return pack;
  }
}

template <int V, class T>
__device__ __forceinline__ void store_pack(T* address, const Pack<T, V>& pack) {
  if constexpr (V == 1) {
    *address = pack.value[0];
  } else {
    uint4 bits;
    memcpy(&bits, &pack, sizeof bits);
    DAQAKD_STORE_16(address, bits);
  }
}

// The last pack of a tensor may be cut short, and those of one that is not aligned go by elements.
template <int V, class T>
__device__ __forceinline__ Pack<T, V> load_pack(
    const T* address, int64_t left, bool aligned = true) {
  if (V == 1 || (aligned && left >= V)) return load_pack<V>(address);
  Pack<T, V> pack = {};
#pragma unroll
  for (int i = 0; i < V; ++i)
    if (i < left) pack.value[i] = address[i];
  return pack;
}

template <int V, class T>
__device__ __forceinline__ void store_pack(
    T* address, const Pack<T, V>& pack, int64_t left, bool aligned = true) {
  if (V == 1 || (aligned && left >= V)) return store_pack<V>(address, pack);
#pragma unroll
  for (int i = 0; i < V; ++i)
    if (i < left) address[i] = pack.value[i];
}

__device__ __forceinline__ float load(float x) { return x; }
__device__ __forceinline__ float load(__half x) { return __half2float(x); }
__device__ __forceinline__ float load(__nv_bfloat16 x) { return __bfloat162float(x); }

template <class T>
__device__ __forceinline__ T store(float x);
template <>
__device__ __forceinline__ float store(float x) {
  return x;
}
template <>
__device__ __forceinline__ __half store(float x) {
  return __float2half_rn(x);
}
template <>
__device__ __forceinline__ __nv_bfloat16 store(float x) {
  return __float2bfloat16_rn(x);
}

}  // namespace daqakd::cuda
