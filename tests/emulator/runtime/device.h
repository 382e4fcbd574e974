#pragma once

// CUDA for a C++ compiler: what the kernels' source takes from cuda_runtime.h, cuda_fp16.h and
// cuda_bf16.h. Included before everything else, so that torch's headers are read as a host's.
#include <math.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>
#include <cstring>
#include <tuple>
#include <type_traits>

#include "emulator.h"

#define __CUDACC__ 1
#define __CUDA_ARCH__ 900
#define __device__
#define __host__
#define __global__
#define __grid_constant__
#define __launch_bounds__(...)
#define __forceinline__ inline
#define __align__(n) alignas(n)
// The library's thread-local memory is the shared memory of a block: one range the loader knows.
#define __shared__ static thread_local
#define threadIdx (::emulator::place.thread)
#define blockIdx (::emulator::place.block)
#define blockDim (::emulator::place.block_size)
#define gridDim (::emulator::place.grid)

struct dim3 {
  dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
  operator emulator::Index() const { return {x, y, z}; }
  unsigned x, y, z;
};

// What csrc/cuda leaves to the device; see its device.cuh.
#define DAQAKD_LAUNCH(kernel, blocks, threads, bytes, stream, ...) \
  emulator::launch(kernel, blocks, threads, bytes __VA_OPT__(, ) __VA_ARGS__)
#define DAQAKD_STORE_16(address, bits) (*reinterpret_cast<uint4*>(address) = (bits))
#define DAQAKD_DYNAMIC_SHARED(type, name) \
  type* const name = reinterpret_cast<type*>(emulator::dynamic_shared)

namespace emulator {

template <class... Parameters, class... Args>
void launch(
    void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Args... args) {
  using All = std::tuple<std::remove_const_t<Parameters>...>;
  All all(args...);
  const auto body = [](void* function, void* parameters) {
    std::apply(reinterpret_cast<void (*)(Parameters...)>(function), *static_cast<All*>(parameters));
  };
  run({reinterpret_cast<void*>(kernel), body, &all, sizeof all}, grid, block, shared_bytes);
}

// `other` turns this lane's place in its segment of `width` into the place of the lane wanted.
template <class T, class F>
T shuffle_by(Site site, unsigned mask, T value, int width, const F& other) {
  const int first = lane() / width * width, found = other(lane() - first);
  const bool inside = 0 <= found && found < width;
  shuffle(site, mask, inside ? first + found : lane(), &value, sizeof value);
  return value;
}

template <class F>
uint64_t reduce_by(Site site, unsigned mask, uint64_t value, uint64_t start, const F& op) {
  uint64_t values[kWarp];
  gather(site, mask, value, values);
  for (int l = 0; l < kWarp; ++l)
    if (mask >> l & 1) start = op(start, values[l], l);
  return start;
}

template <class T, class F>
[[gnu::no_sanitize("thread"), gnu::noinline]] T atomic(T* address, const F& next) {
  atomic_access(address, sizeof(T), __builtin_return_address(0));
  const T old = *address;
  *address = next(old);
  return old;
}

}  // namespace emulator

#define __syncthreads() emulator::barrier(EMULATOR_SITE)
#define __threadfence() emulator::fence()
#define __trap() emulator::trap(EMULATOR_SITE)
#define EMULATOR_FIRST(first, ...) first
#define EMULATOR_OR(value, ...) EMULATOR_FIRST(__VA_ARGS__ __VA_OPT__(, ) value)
#define EMULATOR_SHUFFLE(mask, value, width, wanted) \
  emulator::shuffle_by(                              \
      EMULATOR_SITE, mask, value, width, [&]([[maybe_unused]] int own) { return int(wanted); })
#define __shfl_sync(mask, value, from, ...) \
  EMULATOR_SHUFFLE(mask, value, EMULATOR_OR(32, __VA_ARGS__), (from))
#define __shfl_xor_sync(mask, value, by, ...) \
  EMULATOR_SHUFFLE(mask, value, EMULATOR_OR(32, __VA_ARGS__), own ^ (by))
#define __shfl_down_sync(mask, value, by, ...) \
  EMULATOR_SHUFFLE(mask, value, EMULATOR_OR(32, __VA_ARGS__), own + (by))
#define __shfl_up_sync(mask, value, by, ...) \
  EMULATOR_SHUFFLE(mask, value, EMULATOR_OR(32, __VA_ARGS__), own - (by))
#define __syncwarp(...) emulator::warp_barrier(EMULATOR_SITE, EMULATOR_OR(~0u, __VA_ARGS__))
#define EMULATOR_REDUCE(mask, value, start, result) \
  emulator::reduce_by(                              \
      EMULATOR_SITE, mask, uint64_t(value), start,  \
      [](uint64_t all, uint64_t one, [[maybe_unused]] int l) -> uint64_t { return result; })
#define __ballot_sync(mask, holds) unsigned(EMULATOR_REDUCE(mask, (holds) != 0, 0, all | one << l))
#define __any_sync(mask, holds) int(EMULATOR_REDUCE(mask, (holds) != 0, 0, all | one))
#define __all_sync(mask, holds) int(EMULATOR_REDUCE(mask, (holds) != 0, 1, all & one))
#define __reduce_add_sync(mask, value) unsigned(EMULATOR_REDUCE(mask, value, 0, all + one))
#define __reduce_max_sync(mask, value) \
  unsigned(EMULATOR_REDUCE(mask, value, 0, all > one ? all : one))

// Copied by members, so that every access of 16 bytes is announced with its address.
struct alignas(16) uint4 {
  uint4() = default;
  [[gnu::no_sanitize("thread"), gnu::noinline]] uint4(const uint4& other)
      : x(other.x), y(other.y), z(other.z), w(other.w) {
    emulator::vector_access(&other, sizeof other, false, __builtin_return_address(0));
  }
  [[gnu::no_sanitize("thread"), gnu::noinline]] uint4& operator=(const uint4& other) {
    emulator::vector_access(this, sizeof other, true, __builtin_return_address(0));
    x = other.x, y = other.y, z = other.z, w = other.w;
    return *this;
  }
  unsigned x, y, z, w;
};

#include "device_math.h"
#include "device_runtime.h"
