#pragma once

#include "elementwise.cuh"
#include "fold.cuh"

// The backward kernels of the ops that formulas/elementwise.h describes, with their sums. How a
// tile is added up follows from its shape and dtype alone, not from where its tensors lie, and the
// ops on many tensors add up theirs by the same function.
namespace daqakd::cuda {

static_assert(kThreads == kReduceThreads);  // all threads of the last block add up

constexpr int kBackwardBlocks = 4;  // per multiprocessor at least: 64 registers, and nothing spills

// Packs in flight per thread: 16 elements of each tensor, or registers would cost more warps than
// the loads in flight gain.
template <int W>
constexpr int kBackwardBatch = W == 1 ? 8 : 16 / W;

template <class Op>
constexpr int kSumsOf = Op::kSums > 0 ? Op::kSums : 1;  // elements of an array for them

// The codes of W elements from `at`, the first in the lowest bits.
template <int W, int kBits>
__device__ __forceinline__ unsigned load_codes(
    const uint8_t* __restrict__ mask, int64_t at, int64_t left) {
  const int64_t byte = at * kBits / 8;
  unsigned codes = mask[byte];
  if (W * kBits > 8 && left * kBits > 8) codes |= unsigned(mask[byte + 1]) << 8;
  return W * kBits < 8 ? codes >> at * kBits % 8 : codes;
}

// What gradient() sees of W elements besides their gradients: the inputs, or codes of a mask.
template <class T, int W, int kBits>
struct Seen {
  __device__ __forceinline__ void read(const void* mask, int64_t at, int64_t left, bool) {
    codes = load_codes<W, kBits>(static_cast<const uint8_t*>(mask), at, left);
  }
  __device__ __forceinline__ unsigned operator[](int i) const {
    return codes >> i * kBits & ((1u << kBits) - 1);
  }

  unsigned codes;
};

template <class T, int W>
struct Seen<T, W, 0> {
  __device__ __forceinline__ void read(const void* x, int64_t at, int64_t left, bool aligned) {
    pack = load_pack<W>(static_cast<const T*>(x) + at, left, aligned);
  }
  __device__ __forceinline__ float operator[](int i) const { return load(pack.value[i]); }

  Pack<T, W> pack;
};

// Replaces the gradients of a pack by dx; adds up what its elements contribute, element i to the
// sums i % Columns.
template <class T, int W, class Op, class Prepared, int Columns>
__device__ __forceinline__ void backward_pack(
    Pack<T, W>& g, const Seen<T, W, Op::kBits>& seen, int64_t left, const Op& op,
    const Prepared (&prepared)[Columns], float (&sums)[Columns][kSumsOf<Op>]) {
#pragma unroll
  for (int i = 0; i < W; ++i) {
    const Contribution<float, Op::kSums> one =
        op.gradient(load(g.value[i]), seen[i], prepared[i % Columns]);
    g.value[i] = store<T>(one.dx);
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) sums[i % Columns][s] += i < left ? one.sums[s] : 0.0f;
  }
}

// dx of a tile of one channel, and this thread's part of its sums.
template <int W, class T, class Tile, class Op, class Prepared>
__device__ __forceinline__ void backward_tile(
    const T* __restrict__ grad, const void* __restrict__ other, T* __restrict__ dx,
    const Tile& tile, bool aligned, const Op& op, const Prepared (&prepared)[1],
    float (&sums)[1][kSumsOf<Op>]) {
  constexpr int kStride = kThreads * W, kBatch = kBackwardBatch<W>;
  for (int base = threadIdx.x * W; base < tile.count; base += kBatch * kStride) {
    Pack<T, W> g[kBatch];
    Seen<T, W, Op::kBits> seen[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i >= tile.count) continue;
      g[k] = load_pack<W>(grad + tile.at(i), tile.count - i, aligned);
      seen[k].read(other, tile.at(i), tile.count - i, aligned);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride, left = tile.count - i;
      if (left <= 0) continue;
      backward_pack(g[k], seen[k], left, op, prepared, sums);
      if constexpr (Op::kHasDx) store_pack<W>(dx + tile.at(i), g[k], left, aligned);
    }
  }
}

// Sum s of the block, times `scale`, into place(s).
template <int kSums, int N>
__device__ __forceinline__ void store_sums(const float (&sums)[N], float scale, const auto& place) {
#pragma unroll
  for (int s = 0; s < kSums; ++s) {
    const float total = block_sum<kThreads>(sums[s]);
    if (threadIdx.x == 0) *place(s) = total * scale;
    __syncthreads();
  }
}

// One block: one tile of one channel, one partial of each sum. `other` is the input, or the mask of
// an op with one.
template <class T, int W, bool kGroups, class Op>
__global__ void __launch_bounds__(kThreads, kBackwardBlocks) backward_runs(
    const T* __restrict__ grad,      // [numel]
    const void* __restrict__ other,  // [numel]
    T* __restrict__ dx,              // [numel]
    float* partials,                 // [kSums, down, channels, segments]
    Runs plan, bool aligned, float scale, Op op, Fold fold) {
  const Tile<kGroups> tile(plan, blockIdx.x);
  const decltype(op.prepare(0)) prepared[1] = {op.prepare(tile.channel)};
  float sums[1][kSumsOf<Op>] = {};
  backward_tile<W>(grad, other, dx, tile, aligned, op, prepared, sums);
  store_sums<Op::kSums>(
      sums[0], scale, [&](int s) { return partials + s * int64_t(gridDim.x) + blockIdx.x; });
  if constexpr (Op::kSums > 0) fold.run<Op::kSums>(partials, op);
}

// One thread: W columns of kTileRows / 8 rows; the block adds its 8 rows of threads in order.
template <class T, class Op>
__global__ void __launch_bounds__(kThreads, 2) backward_columns(
    const T* __restrict__ grad,      // [numel]
    const void* __restrict__ other,  // [numel]
    T* __restrict__ dx,              // [numel]
    float* partials,                 // [down, width]
    Columns<kVector<T>> plan, bool aligned, float scale, Op op, Fold fold) {
  constexpr int W = kVector<T>, kRows = kThreads / kLanes, kBatch = Op::kBits > 0 ? 4 : 2;
  __shared__ float lines[kRows][kLanes * W];
  const int lane = threadIdx.x % kLanes, line = threadIdx.x / kLanes;
  const int64_t left_edge = blockIdx.x % plan.tiles * kLanes * W, column = left_edge + lane * W;
  const int64_t tile = blockIdx.x / plan.tiles, top = tile * kTileRows + line;
  decltype(op.prepare(0)) prepared[W];
  float sums[W][1] = {};
  plan.prepare(op, column, prepared);
  const int64_t start = top * plan.width + column, stride = kRows * plan.width;
  const int64_t end = column < plan.width ? start + kTileRows / kRows * stride : start;
  for (int64_t from = start; from < end; from += kBatch * stride) {
    Pack<T, W> g[kBatch];
    Seen<T, W, Op::kBits> seen[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t at = from + k * stride, left = plan.numel - at;
      if (left <= 0) continue;
      g[k] = load_pack<W>(grad + at, left, aligned);
      seen[k].read(other, at, left, aligned);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int64_t at = from + k * stride, left = plan.numel - at;
      if (left <= 0) continue;
      backward_pack(g[k], seen[k], left, op, prepared, sums);
      store_pack<W>(dx + at, g[k], left, aligned);
    }
  }
#pragma unroll
  for (int i = 0; i < W; ++i) lines[line][lane * W + i] = sums[i][0];
  __syncthreads();
  for (int i = threadIdx.x; i < kLanes * W && left_edge + i < plan.width; i += kThreads)
    partials[tile * plan.width + left_edge + i] = add_lines(lines, i) * scale;
  fold.run<1>(partials, op);
}

}  // namespace daqakd::cuda
