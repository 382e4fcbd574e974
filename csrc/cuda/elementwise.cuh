#pragma once

#include "../formulas/elementwise.h"
#include "launch.cuh"
#include "partition.cuh"

// The forward kernels of the ops that formulas/elementwise.h describes. Ops are passed by value,
// and their prepare() takes a channel, for parameters lie on the device.
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
constexpr int kBlocks = 3;     // per multiprocessor at least: 80 registers, and nothing spills
constexpr int kFragments = 4;  // in flight per thread

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
  __host__ __device__ ChannelCursor(int64_t at, int64_t channels, int64_t inner)
      : channel(0), within(0) {
    if (channels == 1) return;
    if (at >> 32 == 0 && inner >> 32 == 0 && channels >> 32 == 0)
      set(unsigned(at), unsigned(channels), unsigned(inner));
    else
      set(at, channels, inner);
  }

  template <class I>  // a division of 64 bits costs several of 32
  __host__ __device__ __forceinline__ void set(I at, I channels, I inner) {
    const I run = at / inner;
    within = at - run * inner;
    channel = run % channels;
  }

  // Moves on by one element; true when the channel changes.
  __device__ __forceinline__ bool advance(int64_t channels, int64_t inner) {
    if (channels == 1 || ++within < inner) return false;
    within = 0;
    channel = channel + 1 == channels ? 0 : channel + 1;
    return true;
  }

  // Moves on by as many elements as lie in front of `step`.
  __device__ __forceinline__ void advance(
      const ChannelCursor& step, int64_t channels, int64_t inner) {
    if (channels == 1) return;
    within += step.within;
    channel += step.channel;
    if (within >= inner) within -= inner, ++channel;
    if (channel >= channels) channel -= channels;
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
      int64_t(blockIdx.x) * (kFragments * kBlockElements) + threadIdx.x * kFragment;
  Fragment<T, V> fragment[kFragments];
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
    const int64_t at = base + k * kBlockElements;
    if (at < numel) fragment[k] = load_fragment<V>(x + at, numel - at);
  }
#pragma unroll
  for (int k = 0; k < kFragments; ++k) {
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

// Packs in flight per thread of a tile that is read once: 64 bytes.
template <int W>
constexpr int kForwardBatch = W == 1 ? 8 : 4;

// body(pack, at, left) for the packs of a tile that are this thread's; the block's threads take
// them in turn. `aligned`: packs of more than one element lie on 16-byte addresses.
template <int W, class T, class Tile, class F>
__device__ __forceinline__ void each_pack(
    const T* __restrict__ x, const Tile& tile, bool aligned, const F& body) {
  constexpr int kStride = kThreads * W, kBatch = kForwardBatch<W>;
  for (int base = threadIdx.x * W; base < tile.count; base += kBatch * kStride) {
    Pack<T, W> pack[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i < tile.count) pack[k] = load_pack<W>(x + tile.at(i), tile.count - i, aligned);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i < tile.count) body(pack[k], tile.at(i), tile.count - i);
    }
  }
}

template <int W, class T, class Tile, class Op, class Prepared>
__device__ __forceinline__ void map_tile(
    const T* __restrict__ x, T* __restrict__ y, const Tile& tile, bool aligned, const Op& op,
    const Prepared& prepared) {
  each_pack<W>(x, tile, aligned, [&](Pack<T, W>& pack, int64_t at, int left) {
#pragma unroll
    for (int i = 0; i < W; ++i) pack.value[i] = store<T>(op.value(load(pack.value[i]), prepared));
    store_pack<W>(y + at, pack, left, aligned);
  });
}

template <class T, class Op>
void map(const Launch& launch, const View& view, const T* x, T* y, uint8_t* mask, const Op& op) {
  const int64_t numel = view.numel(), blocks = ceil_div(numel, kFragments * kBlockElements);
  const auto kernel = aligned({x, y}) ? map_kernel<T, kVector<T>, Op> : map_kernel<T, 1, Op>;
  launch(kernel, blocks, kThreads, x, y, mask, view, numel, op);
}

}  // namespace daqakd::cuda
