#pragma once

#include "../formulas/lsq.h"
#include "partition.cuh"

namespace daqakd::cuda {

using Range = LSQRange<float>;

// Packs in flight per thread: 64 bytes forward; backward 16 elements of each tensor, or registers
// would cost more warps than the loads in flight gain.
template <int V>
constexpr int kForwardBatch = V == 1 ? 8 : 4;
template <int V>
constexpr int kBackwardBatch = V == 1 ? 8 : 16 / V;

// s holds one step for the pack or one per element.
template <class T, int V, int Steps>
__device__ __forceinline__ Pack<T, V> quantize(
    const Pack<T, V>& x, const Step<float> (&s)[Steps], const Range& range) {
  Pack<T, V> y;
#pragma unroll
  for (int i = 0; i < V; ++i)
    y.value[i] = store<T>(lsq_quantize(load(x.value[i]), s[i % Steps], range));
  return y;
}

// dx of a pack; adds what each element contributes to ds to sum[i % Sums].
template <class T, int V, int Sums>
__device__ __forceinline__ Pack<T, V> gradient(
    const Pack<T, V>& g, const Pack<T, V>& x, const Step<float> (&s)[Sums], const Range& range,
    float (&sum)[Sums]) {
  Pack<T, V> dx;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const auto one = lsq_gradient(load(g.value[i]), load(x.value[i]), s[i % Sums], range);
    dx.value[i] = store<T>(one.dx);
    sum[i % Sums] += one.ds;
  }
  return dx;
}

// One block: one tile of one channel.
template <class T, int V, bool kGroups>
__global__ void __launch_bounds__(kThreads) lsq_forward_runs(
    const T* __restrict__ x,         // [numel]
    const float* __restrict__ step,  // [channels]
    T* __restrict__ y,               // [numel]
    Runs plan, Range range) {
  constexpr int kStride = kThreads * V, kBatch = kForwardBatch<V>;
  const Tile<kGroups> tile(plan);
  const Step<float> s[1] = {Step(step[tile.channel])};
  for (int base = threadIdx.x * V; base < tile.count; base += kBatch * kStride) {
    Pack<T, V> pack[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i < tile.count) pack[k] = load_pack<V>(x + tile.at(i), tile.count - i);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i < tile.count)
        store_pack<V>(y + tile.at(i), quantize(pack[k], s, range), tile.count - i);
    }
  }
}

// One thread: V columns of kTileRows rows.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) lsq_forward_columns(
    const T* __restrict__ x,         // [numel]
    const float* __restrict__ step,  // [channels]
    T* __restrict__ y,               // [numel]
    Columns<V> plan, Range range) {
  const int64_t column = (blockIdx.x % plan.tiles * kLanes + threadIdx.x % kLanes) * V;
  if (column >= plan.width) return;
  Step<float> s[V];
  plan.spread(step, column, s);
  constexpr int kRows = kThreads / kLanes, kBatch = 4;
  const int64_t top = blockIdx.x / plan.tiles * kTileRows + threadIdx.x / kLanes;
  const int64_t start = top * plan.width + column, stride = kRows * plan.width;
  for (int64_t from = start; from < start + kTileRows / kRows * stride; from += kBatch * stride) {
    Pack<T, V> pack[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t left = plan.numel - from - k * stride;
      if (left > 0) pack[k] = load_pack<V>(x + from + k * stride, left);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t left = plan.numel - from - k * stride;
      if (left > 0) store_pack<V>(y + from + k * stride, quantize(pack[k], s, range), left);
    }
  }
}

// One block: one tile of one channel, one partial sum.
template <class T, int V, bool kGroups>
__global__ void __launch_bounds__(kThreads) lsq_backward_runs(
    const T* __restrict__ grad,      // [numel]
    const T* __restrict__ x,         // [numel]
    const float* __restrict__ step,  // [channels]
    T* __restrict__ dx,              // [numel]
    float* __restrict__ partials,    // [down, channels, segments]
    Runs plan, Range range, float scale) {
  constexpr int kStride = kThreads * V, kBatch = kBackwardBatch<V>;
  const Tile<kGroups> tile(plan);
  const Step<float> s[1] = {Step(step[tile.channel])};
  float sum[1] = {0.0f};
  for (int base = threadIdx.x * V; base < tile.count; base += kBatch * kStride) {
    Pack<T, V> g[kBatch], v[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i >= tile.count) continue;
      g[k] = load_pack<V>(grad + tile.at(i), tile.count - i);
      v[k] = load_pack<V>(x + tile.at(i), tile.count - i);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i < tile.count)
        store_pack<V>(dx + tile.at(i), gradient(g[k], v[k], s, range, sum), tile.count - i);
    }
  }
  const float total = block_sum<kThreads>(sum[0]);
  if (threadIdx.x == 0) partials[blockIdx.x] = total * scale;
}

// One thread: V columns of kTileRows / 8 rows; the block adds its 8 rows of threads in order.
template <class T, int V>
__global__ void __launch_bounds__(kThreads, 2) lsq_backward_columns(
    const T* __restrict__ grad,      // [numel]
    const T* __restrict__ x,         // [numel]
    const float* __restrict__ step,  // [channels]
    T* __restrict__ dx,              // [numel]
    float* __restrict__ partials,    // [down, width]
    Columns<V> plan, Range range) {
  constexpr int kRows = kThreads / kLanes, kBatch = 2;
  __shared__ float sums[kRows][kLanes * V];
  const int lane = threadIdx.x % kLanes, line = threadIdx.x / kLanes;
  const int64_t left_edge = blockIdx.x % plan.tiles * kLanes * V, column = left_edge + lane * V;
  const int64_t tile = blockIdx.x / plan.tiles, top = tile * kTileRows + line;
  Step<float> s[V];
  float sum[V] = {};
  plan.spread(step, column, s);
  const int64_t start = top * plan.width + column, stride = kRows * plan.width;
  const int64_t end = column < plan.width ? start + kTileRows / kRows * stride : start;
  for (int64_t from = start; from < end; from += kBatch * stride) {
    Pack<T, V> g[kBatch], v[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t left = plan.numel - from - k * stride;
      if (left <= 0) continue;
      g[k] = load_pack<V>(grad + from + k * stride, left);
      v[k] = load_pack<V>(x + from + k * stride, left);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t left = plan.numel - from - k * stride;
      if (left > 0)
        store_pack<V>(dx + from + k * stride, gradient(g[k], v[k], s, range, sum), left);
    }
  }
#pragma unroll
  for (int i = 0; i < V; ++i) sums[line][lane * V + i] = sum[i];
  __syncthreads();
  for (int i = threadIdx.x; i < kLanes * V && left_edge + i < plan.width; i += kThreads) {
    float total = sums[0][i];
#pragma unroll
    for (int row = 1; row < kRows; ++row) total += sums[row][i];
    partials[tile * plan.width + left_edge + i] = total;
  }
}

}  // namespace daqakd::cuda
