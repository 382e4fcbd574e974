#include "codes.cuh"

#include "../ops.h"

namespace daqakd::cuda {
namespace {

// The codes of a thread's neighbours: as many bytes as a slot has bits, the last ones cut short.
template <bool kAligned>
__device__ __forceinline__ uint64_t load_slots(const uint8_t* address, int slot, int64_t left) {
  if (kAligned && left >= kFragment) {
    if (slot == 8) return *reinterpret_cast<const uint64_t*>(address);
    if (slot == 4) return *reinterpret_cast<const uint32_t*>(address);
    if (slot == 2) return *reinterpret_cast<const uint16_t*>(address);
    return *address;
  }
  uint64_t codes = 0;
  for (int i = 0; i < slot && i * 8 < left * slot; ++i) codes |= uint64_t(address[i]) << 8 * i;
  return codes;
}

// One thread: 4 fragments, whole bytes of codes each.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocks) codes_pack_kernel(
    const T* __restrict__ y,      // [numel]
    uint8_t* __restrict__ codes,  // [numel * slot / 8]
    int64_t numel, DeviceCodes all) {
  const int64_t base =
      int64_t(blockIdx.x) * (kFragments * kBlockElements) + threadIdx.x * kFragment;
  Fragment<T, V> fragment[kFragments];
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
    const int64_t at = base + k * kBlockElements;
    if (at < numel) fragment[k] = load_fragment<V>(y + at, numel - at);
  }
  const CodeSlots slots = all.slots();
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
    const int64_t at = base + k * kBlockElements, left = numel - at;
    if (left <= 0) return;
    const uint64_t found = slots.of<T, kFragment>(fragment[k], left);
    store_slots<kFragment>(codes + at / 8 * all.slot, found, all.slot, left);
  }
}

template <class T, int V>
__global__ void __launch_bounds__(kThreads, kBlocks) codes_unpack_kernel(
    const uint8_t* __restrict__ codes,  // [numel * slot / 8]
    T* __restrict__ y,                  // [numel]
    int64_t numel, DeviceCodes all) {
  const int64_t base =
      int64_t(blockIdx.x) * (kFragments * kBlockElements) + threadIdx.x * kFragment;
  uint64_t packed[kFragments];
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
    const int64_t at = base + k * kBlockElements;
    if (at < numel)
      packed[k] = load_slots<(V > 1)>(codes + at / 8 * all.slot, all.slot, numel - at);
  }
  const CodeGrid<float> grid = all.grid();
  const unsigned last = (1u << all.slot) - 1;
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
    const int64_t at = base + k * kBlockElements, left = numel - at;
    if (left <= 0) return;
    Fragment<T, V> fragment;
#pragma unroll
    for (int i = 0; i < kFragment; ++i)
      fragment[i] = store<T>(grid.value(float(unsigned(packed[k] >> i * all.slot) & last)));
    store_fragment<V>(y + at, fragment, left);
  }
}

}  // namespace

void pack_codes(const Launch& launch, const Tensor& y, const Tensor& codes, DeviceCodes all) {
  by_dtype(y, [&](auto element) {
    using T = decltype(element);
    const T* from = data<T>(y);
    const auto kernel =
        aligned({from}) ? codes_pack_kernel<T, kVector<T>> : codes_pack_kernel<T, 1>;
    launch(
        kernel, ceil_div(y.numel(), kFragments * kBlockElements), kThreads, from,
        mutable_data<uint8_t>(codes), y.numel(), all);
  });
}

Tensor codes_pack(
    const Tensor& y, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed) {
  check_codes_pack(y, parameter, method, bits, is_signed);
  const Launch launch(y);
  const Tensor input = dense(y);
  const optional<Tensor> level = as_floats(parameter);
  Tensor codes = empty_mask(y, slot_bits(bits));
  if (y.numel() != 0) pack_codes(launch, input, codes, codes_of(level, method, bits, is_signed));
  return codes;
}

Tensor codes_unpack(
    const Tensor& codes, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed, int64_t count, ScalarType dtype) {
  check_codes_unpack(codes, parameter, method, bits, is_signed, count, dtype);
  const Launch launch(codes);
  const optional<Tensor> level = as_floats(parameter);
  Tensor y = empty(codes, &count, 1, dtype);
  if (count == 0) return y;
  by_dtype(y, [&](auto element) {
    using T = decltype(element);
    const uint8_t* from = data<uint8_t>(codes);
    T* to = mutable_data<T>(y);
    const auto kernel =
        aligned({from, to}) ? codes_unpack_kernel<T, kVector<T>> : codes_unpack_kernel<T, 1>;
    launch(
        kernel, ceil_div(count, kFragments * kBlockElements), kThreads, from, to, count,
        codes_of(level, method, bits, is_signed));
  });
  return y;
}

}  // namespace daqakd::cuda
