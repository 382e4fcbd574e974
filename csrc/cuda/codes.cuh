#pragma once

#include "../formulas/codes.h"

#include "elementwise.cuh"
#include "scalar.cuh"

// How values become packed codes.
namespace daqakd::cuda {

template <class T>
__device__ __forceinline__ float code_of(float y, const CodeGrid<float>& grid, bool is_dense) {
  const float code = grid.nearest(y);
  if (std::is_same_v<T, float> || !is_dense) return code;
  const float value = load(store<T>(grid.value(code))), other = grid.beyond(code, value, y);
  return daqakd::code_of(y, code, value, other, load(store<T>(grid.value(other))));
}

// What a thread packs with.
struct CodeSlots {
  // The codes of N neighbours side by side, zero beyond `left`.
  template <class T, int N, class Values>
  __device__ __forceinline__ uint64_t of(const Values& y, int64_t left) const {
    uint64_t found = 0;
#pragma unroll
    for (int i = 0; i < N; ++i) {
      const unsigned code = unsigned(code_of<T>(load(y[i]), grid, is_dense));
      found |= i < left ? uint64_t(code) << i * slot : 0u;
    }
    return found;
  }

  CodeGrid<float> grid;
  bool is_dense;
  int slot;  // bits of a packed code
};

struct DeviceCodes {
  __device__ CodeGrid<float> grid() const { return {parameter ? *parameter : 1.0f, range}; }
  __device__ CodeSlots slots() const {
    const CodeGrid<float> own = grid();
    return {own, own.is_dense(), slot};
  }

  CodeRange<float> range;
  const float* parameter;  // [], or null
  int slot;                // bits of a packed code
};

// Of N neighbours, which fill whole bytes; codes beyond `left` must be zero.
template <int N>
__device__ __forceinline__ void store_slots(
    uint8_t* address, uint64_t codes, int slot, int64_t left) {
  const int bits = N * slot;
  if (left < N) {
    for (int i = 0; i * 8 < left * slot; ++i) address[i] = uint8_t(codes >> 8 * i);
  } else if (bits == 64) {
    *reinterpret_cast<uint64_t*>(address) = codes;
  } else if (bits == 32) {
    *reinterpret_cast<uint32_t*>(address) = uint32_t(codes);
  } else if (bits == 16) {
    *reinterpret_cast<uint16_t*>(address) = uint16_t(codes);
  } else {
    *address = uint8_t(codes);
  }
}

// The parameter must outlive the launch.
inline DeviceCodes codes_of(
    const optional<Tensor>& parameter, int64_t method, int64_t bits, bool is_signed) {
  return {
      CodeRange<float>(Method(method), bits, is_signed),
      parameter ? data<float>(*parameter) : nullptr, slot_bits(bits)};
}

// Writes the codes of the dense `y`, which has some elements.
void pack_codes(const Launch& launch, const Tensor& y, const Tensor& codes, DeviceCodes all);

}  // namespace daqakd::cuda
