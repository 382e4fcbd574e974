#pragma once

#include "elementwise.cuh"

// The forward of ops with a parameter per channel and no mask, by tiles of one channel or columns
// of several; backward.cuh has those of their gradients.
namespace daqakd::cuda {

// One block: one tile of one channel.
template <class T, int V, bool kGroups, class Op>
__global__ void __launch_bounds__(kThreads) forward_runs(
    const T* __restrict__ x,  // [numel]
    T* __restrict__ y,        // [numel]
    Runs plan, Op op) {
  const Tile<kGroups> tile(plan, blockIdx.x);
  map_tile<V>(x, y, tile, true, op, op.prepare(tile.channel));
}

// One thread: V columns of kTileRows rows.
template <class T, int V, class Op>
__global__ void __launch_bounds__(kThreads) forward_columns(
    const T* __restrict__ x,  // [numel]
    T* __restrict__ y,        // [numel]
    Columns<V> plan, Op op) {
  const int64_t column = (blockIdx.x % plan.tiles * kLanes + threadIdx.x % kLanes) * V;
  if (column >= plan.width) return;
  decltype(op.prepare(0)) s[V];
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

// y, one pack of V elements at a time; x and y are dense with the same strides.
template <class T, int V, class Op>
void channel_forward_by(const Launch& launch, const View& view, const T* x, T* y, const Op& op) {
  if (is_narrow(view)) {
    const Columns<V> plan(view);
    return launch(forward_columns<T, V, Op>, plan.blocks(), kThreads, x, y, plan, op);
  }
  const Runs plan(view);
  const auto kernel =
      plan.has_groups() ? forward_runs<T, V, true, Op> : forward_runs<T, V, false, Op>;
  launch(kernel, plan.blocks(), kThreads, x, y, plan, op);
}

template <class T, class Op>
void channel_forward(const Launch& launch, const View& view, const T* x, T* y, const Op& op) {
  const bool vectorize = can_vectorize<T>(view, {x, y});
  const auto run = vectorize ? channel_forward_by<T, kVector<T>, Op> : channel_forward_by<T, 1, Op>;
  run(launch, view, x, y, op);
}

}  // namespace daqakd::cuda
