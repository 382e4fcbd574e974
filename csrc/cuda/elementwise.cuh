#pragma once

#include "launch.cuh"
#include "partition.cuh"

// What elementwise ops share. An op is a small struct, passed to the kernel by value:
//   prepare(channel)      what value and gradient take: parameters read from the device
//   value(x, prepared)    forward: one output
//   code(x, prepared)     its code in a mask of kBits bits per element; kBits = 0 without
//   gradient(g, x or code, prepared)    backward: dx (if kHasDx) and its shares of kSums sums
namespace daqakd::cuda {

// A thread takes 8 neighbours at a time: one or two whole bytes of a mask.
constexpr int kUnit = 8;
constexpr int kBlockUnits = kThreads * kUnit;
constexpr int kBlocks = 3;  // per multiprocessor at least: 80 registers, and nothing spills
constexpr int kForwardUnits = 4, kBackwardUnits = 2;  // in flight per thread

template <class T, int V>
struct Unit {
  __device__ __forceinline__ T& operator[](int i) { return pack[i / V].value[i % V]; }
  __device__ __forceinline__ const T& operator[](int i) const { return pack[i / V].value[i % V]; }
  Pack<T, V> pack[kUnit / V];
};

template <int V, class T>
__device__ __forceinline__ Unit<T, V> load_unit(const T* address, int64_t left) {
  Unit<T, V> unit = {};
#pragma unroll
  for (int j = 0; j < kUnit / V; ++j)
    if (j * V < left) unit.pack[j] = load_pack<V>(address + j * V, left - j * V);
  return unit;
}

template <int V, class T>
__device__ __forceinline__ void store_unit(T* address, const Unit<T, V>& unit, int64_t left) {
#pragma unroll
  for (int j = 0; j < kUnit / V; ++j)
    if (j * V < left) store_pack<V>(address + j * V, unit.pack[j], left - j * V);
}

// Codes beyond `left` must be zero.
template <int kBits>
__device__ __forceinline__ void store_codes(uint8_t* mask, unsigned codes, int64_t left) {
  if (kBits == 2 && left > 4)
    *reinterpret_cast<uint16_t*>(mask) = uint16_t(codes);
  else
    *mask = uint8_t(codes);
}

// Where an element lies among the channels.
struct Place {
  __device__ Place(int64_t at, int64_t channels, int64_t inner)
      : channel(channels > 1 ? at / inner % channels : 0), within(channels > 1 ? at % inner : 0) {}

  // Moves on by one element; true when the channel changes.
  __device__ __forceinline__ bool next(int64_t channels, int64_t inner) {
    if (channels == 1 || ++within < inner) return false;
    within = 0;
    channel = channel + 1 == channels ? 0 : channel + 1;
    return true;
  }

  int64_t channel, within;
};

// One thread: 4 units. The cut ignores channels, so that no two threads share a byte of the mask.
template <class T, int V, class Op>
__global__ void __launch_bounds__(kThreads, kBlocks) map_kernel(
    const T* __restrict__ x,     // [numel]
    T* __restrict__ y,           // [numel]
    uint8_t* __restrict__ mask,  // [numel * kBits / 8]
    View view, int64_t numel, Op op) {
  const int64_t base =
      int64_t(blockIdx.x) * (kForwardUnits * kBlockUnits) + threadIdx.x * kUnit;
  Unit<T, V> unit[kForwardUnits];
#pragma unroll
  for (int k = 0; k < kForwardUnits; ++k) {
    const int64_t at = base + k * kBlockUnits;
    if (at < numel) unit[k] = load_unit<V>(x + at, numel - at);
  }
#pragma unroll
  for (int k = 0; k < kForwardUnits; ++k) {
    const int64_t at = base + k * kBlockUnits, left = numel - at;
    if (left <= 0) return;
    Place place(at, view.channels, view.inner);
    auto prepared = op.prepare(place.channel);
    unsigned codes = 0;
#pragma unroll
    for (int i = 0; i < kUnit; ++i) {
      const float value = load(unit[k][i]);
      unit[k][i] = store<T>(op.value(value, prepared));
      if constexpr (Op::kBits > 0)
        codes |= i < left ? unsigned(op.code(value, prepared)) << (i * Op::kBits) : 0u;
      if (i + 1 < kUnit && place.next(view.channels, view.inner))
        prepared = op.prepare(place.channel);
    }
    store_unit<V>(y + at, unit[k], left);
    if constexpr (Op::kBits > 0) store_codes<Op::kBits>(mask + at * Op::kBits / 8, codes, left);
  }
}

template <int N>
struct Shares {
  float dx;
  float sums[N > 0 ? N : 1];
};

// One block: one partial of each sum. `other` is the input, or the mask of an op with one.
template <class T, int V, class Op>
__global__ void __launch_bounds__(kThreads, kBlocks) flat_backward_kernel(
    const T* __restrict__ grad,      // [numel]
    const void* __restrict__ other,  // [numel]
    T* __restrict__ dx,              // [numel]
    float* __restrict__ partials,    // [kSums, blocks]
    int64_t numel, Op op) {
  const auto prepared = op.prepare(0);
  float sums[Op::kSums > 0 ? Op::kSums : 1] = {};
  const int64_t tile = int64_t(blockIdx.x) * kTile + threadIdx.x * kUnit;
#pragma unroll 1
  for (int64_t base = tile; base < tile + kTile; base += kBackwardUnits * kBlockUnits) {
    Unit<T, V> g[kBackwardUnits], x[kBackwardUnits];
    unsigned codes[kBackwardUnits] = {};
#pragma unroll
    for (int k = 0; k < kBackwardUnits; ++k) {
      const int64_t at = base + k * kBlockUnits;
      if (at >= numel) continue;
      g[k] = load_unit<V>(grad + at, numel - at);
      if constexpr (Op::kBits > 0)
        codes[k] = static_cast<const uint8_t*>(other)[at / 8];
      else
        x[k] = load_unit<V>(static_cast<const T*>(other) + at, numel - at);
    }
#pragma unroll
    for (int k = 0; k < kBackwardUnits; ++k) {
      const int64_t at = base + k * kBlockUnits, left = numel - at;
#pragma unroll
      for (int i = 0; i < kUnit; ++i) {
        if (i >= left) continue;
        Shares<Op::kSums> one;
        if constexpr (Op::kBits > 0)
          one = op.gradient(load(g[k][i]), codes[k] >> i & 1u, prepared);
        else
          one = op.gradient(load(g[k][i]), load(x[k][i]), prepared);
        g[k][i] = store<T>(one.dx);
#pragma unroll
        for (int s = 0; s < Op::kSums; ++s) sums[s] += one.sums[s];
      }
      if constexpr (Op::kHasDx)
        if (left > 0) store_unit<V>(dx + at, g[k], left);
    }
  }
#pragma unroll
  for (int s = 0; s < Op::kSums; ++s) {
    const float total = block_sum<kThreads>(sums[s]);
    if (threadIdx.x == 0) partials[s * gridDim.x + blockIdx.x] = total;
    __syncthreads();
  }
}

template <class T, class Op>
void map(const Launch& launch, const View& view, const T* x, T* y, uint8_t* mask, const Op& op) {
  const int64_t numel = view.numel(), blocks = ceil_div(numel, kForwardUnits * kBlockUnits);
  const auto kernel = aligned({x, y}) ? map_kernel<T, kVector<T>, Op> : map_kernel<T, 1, Op>;
  launch(kernel, blocks, kThreads, x, y, mask, view, numel, op);
}

// dx, and sums[k] = op's sum k times `scale`.
template <class T, class Op>
void flat_backward(
    const Launch& launch, const Tensor& model, const T* grad, const void* other, T* dx,
    std::initializer_list<float*> sums, float scale, const Op& op) {
  const int64_t numel = model.numel(), blocks = ceil_div(numel, kTile);
  const bool vectorize = aligned({grad, dx}) && (Op::kBits > 0 || aligned({other}));
  const auto kernel =
      vectorize ? flat_backward_kernel<T, kVector<T>, Op> : flat_backward_kernel<T, 1, Op>;
  const Tensor partials = scratch(model, std::max<int64_t>(1, Op::kSums * blocks));
  float* from = mutable_data<float>(partials);
  launch(kernel, blocks, kThreads, grad, other, dx, from, numel, op);
  for (float* sum : sums) {
    launch(fold_kernel, 1, kFoldThreads, from, Fold{blocks, 1, 1, 1, 1}, scale, sum);
    from += blocks;
  }
}

}  // namespace daqakd::cuda
