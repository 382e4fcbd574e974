#pragma once

#include "../formulas/elementwise.h"
#include "launch.cuh"
#include "partition.cuh"

// The kernels of the ops that formulas/elementwise.h describes. Ops are passed by value, and their
// prepare() takes a channel, for parameters lie on the device.
namespace daqakd::cuda {

struct DeviceParameter {
  const float* parameter;  // [channels] or []
};

template <class Op>
struct PerChannel : DeviceParameter, Op {
  __device__ auto prepare(int64_t channel) const { return Op::prepare(parameter[channel]); }
};

template <class Op>
struct PerTensor : DeviceParameter, Op {
  __device__ auto prepare(int64_t) const { return Op::prepare(*parameter); }
};

// A thread takes 8 neighbours at a time: one or two whole bytes of a mask.
constexpr int kFragment = 8;
constexpr int kBlockElements = kThreads * kFragment;
constexpr int kBlocks = 3;  // per multiprocessor at least: 80 registers, and nothing spills
constexpr int kForwardFragments = 4, kBackwardFragments = 2;  // in flight per thread

template <class T, int V>
struct Fragment {
  __device__ __forceinline__ T& operator[](int i) { return pack[i / V].value[i % V]; }
  __device__ __forceinline__ const T& operator[](int i) const { return pack[i / V].value[i % V]; }
  Pack<T, V> pack[kFragment / V];
};

template <int V, class T>
__device__ __forceinline__ Fragment<T, V> load_fragment(const T* address, int64_t left) {
  Fragment<T, V> fragment = {};
#pragma unroll
  for (int j = 0; j < kFragment / V; ++j)
    if (j * V < left) fragment.pack[j] = load_pack<V>(address + j * V, left - j * V);
  return fragment;
}

template <int V, class T>
__device__ __forceinline__ void store_fragment(
    T* address, const Fragment<T, V>& fragment, int64_t left) {
#pragma unroll
  for (int j = 0; j < kFragment / V; ++j)
    if (j * V < left) store_pack<V>(address + j * V, fragment.pack[j], left - j * V);
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
struct ChannelCursor {
  __device__ ChannelCursor(int64_t at, int64_t channels, int64_t inner)
      : channel(channels > 1 ? at / inner % channels : 0), within(channels > 1 ? at % inner : 0) {}

  // Moves on by one element; true when the channel changes.
  __device__ __forceinline__ bool advance(int64_t channels, int64_t inner) {
    if (channels == 1 || ++within < inner) return false;
    within = 0;
    channel = channel + 1 == channels ? 0 : channel + 1;
    return true;
  }

  int64_t channel, within;
};

// One thread: 4 fragments, cut regardless of channels: no two threads share a byte of the mask.
template <class T, int V, class Op>
__global__ void __launch_bounds__(kThreads, kBlocks) map_kernel(
    const T* __restrict__ x,     // [numel]
    T* __restrict__ y,           // [numel]
    uint8_t* __restrict__ mask,  // [numel * kBits / 8]
    View view, int64_t numel, Op op) {
  const int64_t base =
      int64_t(blockIdx.x) * (kForwardFragments * kBlockElements) + threadIdx.x * kFragment;
  Fragment<T, V> fragment[kForwardFragments];
#pragma unroll
  for (int k = 0; k < kForwardFragments; ++k) {
    const int64_t at = base + k * kBlockElements;
    if (at < numel) fragment[k] = load_fragment<V>(x + at, numel - at);
  }
#pragma unroll
  for (int k = 0; k < kForwardFragments; ++k) {
    const int64_t at = base + k * kBlockElements, left = numel - at;
    if (left <= 0) return;
    ChannelCursor cursor(at, view.channels, view.inner);
    auto prepared = op.prepare(cursor.channel);
    unsigned codes = 0;
#pragma unroll
    for (int i = 0; i < kFragment; ++i) {
      const float value = load(fragment[k][i]);
      fragment[k][i] = store<T>(op.value(value, prepared));
      if constexpr (Op::kBits > 0)
        codes |= i < left ? unsigned(op.code(value, prepared)) << (i * Op::kBits) : 0u;
      if (i + 1 < kFragment && cursor.advance(view.channels, view.inner))
        prepared = op.prepare(cursor.channel);
    }
    store_fragment<V>(y + at, fragment[k], left);
    if constexpr (Op::kBits > 0) store_codes<Op::kBits>(mask + at * Op::kBits / 8, codes, left);
  }
}

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
  const int64_t tile = int64_t(blockIdx.x) * kTile + threadIdx.x * kFragment;
#pragma unroll 1
  for (int64_t base = tile; base < tile + kTile; base += kBackwardFragments * kBlockElements) {
    Fragment<T, V> g[kBackwardFragments], x[kBackwardFragments];
    unsigned codes[kBackwardFragments] = {};
#pragma unroll
    for (int k = 0; k < kBackwardFragments; ++k) {
      const int64_t at = base + k * kBlockElements;
      if (at >= numel) continue;
      g[k] = load_fragment<V>(grad + at, numel - at);
      if constexpr (Op::kBits > 0)
        codes[k] = static_cast<const uint8_t*>(other)[at / 8];
      else
        x[k] = load_fragment<V>(static_cast<const T*>(other) + at, numel - at);
    }
#pragma unroll
    for (int k = 0; k < kBackwardFragments; ++k) {
      const int64_t at = base + k * kBlockElements, left = numel - at;
#pragma unroll
      for (int i = 0; i < kFragment; ++i) {
        if (i >= left) continue;
        Contribution<float, Op::kSums> one;
        if constexpr (Op::kBits > 0)
          one = op.gradient(load(g[k][i]), codes[k] >> i & 1u, prepared);
        else
          one = op.gradient(load(g[k][i]), load(x[k][i]), prepared);
        g[k][i] = store<T>(one.dx);
#pragma unroll
        for (int s = 0; s < Op::kSums; ++s) sums[s] += one.sums[s];
      }
      if constexpr (Op::kHasDx)
        if (left > 0) store_fragment<V>(dx + at, g[k], left);
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
  const int64_t numel = view.numel(), blocks = ceil_div(numel, kForwardFragments * kBlockElements);
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
    launch(reduce_kernel, 1, kReduceThreads, from, Reduction{blocks, 1, 1, 1, 1}, scale, sum);
    from += blocks;
  }
}

}  // namespace daqakd::cuda
