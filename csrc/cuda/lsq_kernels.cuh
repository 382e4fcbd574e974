#pragma once

#include "../formulas/lsq.h"
#include "elementwise.cuh"

// LSQ's forward kernels; backward.cuh has those of its gradients.
namespace daqakd::cuda {

using DeviceLSQ = PerChannel<LSQ<float>>;

// One block: one tile of one channel.
template <class T, int V, bool kGroups>
__global__ void __launch_bounds__(kThreads) lsq_forward_runs(
    const T* __restrict__ x,  // [numel]
    T* __restrict__ y,        // [numel]
    Runs plan, DeviceLSQ op) {
  const Tile<kGroups> tile(plan, blockIdx.x);
  map_tile<V>(x, y, tile, true, op, op.prepare(tile.channel));
}

// One thread: V columns of kTileRows rows.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) lsq_forward_columns(
    const T* __restrict__ x,  // [numel]
    T* __restrict__ y,        // [numel]
    Columns<V> plan, DeviceLSQ op) {
  const int64_t column = (blockIdx.x % plan.tiles * kLanes + threadIdx.x % kLanes) * V;
  if (column >= plan.width) return;
  Step<float> s[V];
  plan.prepare(op, column, s);
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
      if (left <= 0) continue;
#pragma unroll
      for (int i = 0; i < V; ++i)
        pack[k].value[i] = store<T>(op.value(load(pack[k].value[i]), s[i]));
      store_pack<V>(y + from + k * stride, pack[k], left);
    }
  }
}

}  // namespace daqakd::cuda
