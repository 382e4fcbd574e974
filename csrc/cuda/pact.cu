#include "../formulas/pact.h"

#include "../ops.h"
#include "elementwise.cuh"

namespace daqakd::cuda {
namespace {

// The codes of V elements from `at`, the first in the lowest bits; packs start on whole bytes.
template <int V>
__device__ __forceinline__ unsigned load_codes(
    const uint8_t* __restrict__ mask, int64_t at, int64_t left) {
  if (V == 1) return mask[at / 4] >> at % 4 * 2;
  unsigned codes = mask[at / 4];
  if (V == 8 && left > 4) codes |= unsigned(mask[at / 4 + 1]) << 8;
  return codes;
}

// dx of a pack; adds what each element contributes to dalpha to sum[i % Sums].
template <class T, int V, int Sums>
__device__ __forceinline__ Pack<T, V> gradient(
    const Pack<T, V>& g, unsigned codes, unsigned subtracted, int64_t left, float (&sum)[Sums]) {
  Pack<T, V> dx;
#pragma unroll
  for (int i = 0; i < V; ++i) {
    const auto one = pact_gradient(load(g.value[i]), codes >> (2 * i) & 3u, subtracted);
    dx.value[i] = store<T>(one.dx);
    sum[i % Sums] += i < left ? one.dalpha : 0.0f;
  }
  return dx;
}

template <int V>
constexpr int kBatch = V == 1 ? 8 : 16 / V;

// One block: one tile of one channel, one partial sum.
template <class T, int V, bool kGroups>
__global__ void __launch_bounds__(kThreads, kBlocks) pact_backward_runs(
    const T* __restrict__ grad,        // [numel]
    const uint8_t* __restrict__ mask,  // [numel / 4]
    T* __restrict__ dx,                // [numel]
    float* __restrict__ partials,      // [down, channels, segments]
    Runs plan, unsigned subtracted) {
  constexpr int kStride = kThreads * V;
  const Tile<kGroups> tile(plan);
  float sum[1] = {0.0f};
  for (int base = threadIdx.x * V; base < tile.count; base += kBatch<V> * kStride) {
    Pack<T, V> g[kBatch<V>];
    unsigned codes[kBatch<V>];
#pragma unroll
    for (int k = 0; k < kBatch<V>; ++k) {
      const int i = base + k * kStride;
      if (i >= tile.count) continue;
      g[k] = load_pack<V>(grad + tile.at(i), tile.count - i);
      codes[k] = load_codes<V>(mask, tile.at(i), tile.count - i);
    }
#pragma unroll
    for (int k = 0; k < kBatch<V>; ++k) {
      const int i = base + k * kStride, left = tile.count - i;
      if (left > 0)
        store_pack<V>(dx + tile.at(i), gradient(g[k], codes[k], subtracted, left, sum), left);
    }
  }
  const float total = block_sum<kThreads>(sum[0]);
  if (threadIdx.x == 0) partials[blockIdx.x] = total;
}

// One thread: V columns of kTileRows / 8 rows; the block adds its 8 rows of threads in order.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) pact_backward_columns(
    const T* __restrict__ grad,        // [numel]
    const uint8_t* __restrict__ mask,  // [numel / 4]
    T* __restrict__ dx,                // [numel]
    float* __restrict__ partials,      // [down, width]
    Columns<V> plan, unsigned subtracted) {
  constexpr int kRows = kThreads / kLanes, kPacks = 4;
  __shared__ float sums[kRows][kLanes * V];
  const int lane = threadIdx.x % kLanes, line = threadIdx.x / kLanes;
  const int64_t left_edge = blockIdx.x % plan.tiles * kLanes * V, column = left_edge + lane * V;
  const int64_t tile = blockIdx.x / plan.tiles, top = tile * kTileRows + line;
  float sum[V] = {};
  const int64_t start = top * plan.width + column, stride = kRows * plan.width;
  const int64_t end = column < plan.width ? start + kTileRows / kRows * stride : start;
  for (int64_t from = start; from < end; from += kPacks * stride) {
    Pack<T, V> g[kPacks];
    unsigned codes[kPacks];
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t at = from + k * stride, left = plan.numel - at;
      if (left <= 0) continue;
      g[k] = load_pack<V>(grad + at, left);
      codes[k] = load_codes<V>(mask, at, left);
    }
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t at = from + k * stride, left = plan.numel - at;
      if (left > 0) store_pack<V>(dx + at, gradient(g[k], codes[k], subtracted, left, sum), left);
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

template <class T, int V>
void backward(
    const Launch& launch, const View& view, const T* grad, const uint8_t* mask, T* dx,
    const Tensor& dalpha, unsigned subtracted) {
  const auto with = [&](auto kernel, const auto& plan, int64_t partial_sums) {
    const Tensor partials = scratch(dalpha, partial_sums);
    float* sums = mutable_data<float>(partials);
    launch(kernel, plan.blocks(), kThreads, grad, mask, dx, sums, plan, subtracted);
    launch(
        reduce_kernel, view.channels, kReduceThreads, sums, plan.reduction(), 1.0f,
        mutable_data<float>(dalpha));
  };
  if (is_narrow(view)) {
    const Columns<V> plan(view);
    return with(pact_backward_columns<T, V>, plan, plan.down() * plan.width);
  }
  const Runs plan(view);
  const auto kernel =
      plan.has_groups() ? pact_backward_runs<T, V, true> : pact_backward_runs<T, V, false>;
  with(kernel, plan, plan.blocks());
}

}  // namespace

tuple<Tensor, Tensor> pact_forward(
    const Tensor& x, const Tensor& alpha, int64_t bits, bool is_signed, optional<int64_t> axis) {
  check_pact(x, alpha, bits, is_signed, axis);
  const Launch launch(x);
  const Tensor input = dense(x), levels = as_parameter(alpha, ScalarType::Float);
  Tensor y = empty_as(input), mask = empty_mask(x, 2);
  if (x.numel() == 0) return {y, mask};
  const PerChannel<PACT<float>> op{{data<float>(levels)}, {PACTRange<float>(bits, is_signed)}};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    map<T>(
        launch, view_of(input, axis), data<T>(input), mutable_data<T>(y),
        mutable_data<uint8_t>(mask), op);
  });
  return {y, mask};
}

tuple<Tensor, Tensor> pact_backward(
    const Tensor& grad, const Tensor& mask, const Tensor& alpha, bool is_signed,
    optional<int64_t> axis) {
  check_pact_backward(grad, mask, alpha, axis);
  const Launch launch(grad);
  const Tensor g = dense(grad);
  Tensor dx = empty_as(g), dalpha = empty_contiguous(alpha, ScalarType::Float);
  if (grad.numel() == 0) return {dx, torch::stable::zero_(dalpha)};
  const View view = view_of(g, axis);
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    const T* from = data<T>(g);
    T* to = mutable_data<T>(dx);
    const auto run = can_vectorize<T>(view, {from, to}) ? backward<T, kVector<T>> : backward<T, 1>;
    run(launch, view, from, data<uint8_t>(mask), to, dalpha, is_signed ? kBelow : kNoCode);
  });
  return {dx, dalpha};
}

}  // namespace daqakd::cuda
