#pragma once

#include "elementwise.cuh"

// The tensors of a model in one launch: their table travels in the kernel's parameters, so that
// nothing is copied to the device and a CUDA graph can capture it. A tensor is rows of one
// parameter each; a block takes one piece of a row. Ops are those of elementwise.cuh, one per
// tensor; all threads of a block call prepare() together, and an op may add
//   publish(prepared)     called by one thread of the tensor
namespace daqakd::cuda {

constexpr int kManyTile = kBlockUnits;  // elements of a block: one unit per thread
constexpr int kParameterBytes = 4096;   // what a launch can carry on every GPU

struct Rows {
  int64_t rows, inner;
  // An empty tensor has one: its block writes what an empty sum is.
  __host__ __device__ int64_t pieces() const {
    return inner <= kManyTile ? 1 : (inner + kManyTile - 1) / kManyTile;
  }
};

template <class Op>
struct Member {
  const void *x, *grad;  // [rows, inner]; grad is null forward
  void* out;             // [rows, inner], or null for an op without
  float* partials;       // [kSums, rows, pieces]
  Rows shape;
  bool vectorize;
  Op op;
};

template <class Op>
constexpr int kMany = (kParameterBytes - 64) / int(sizeof(Member<Op>) + sizeof(int));

template <class Op>
struct Table {
  int count;
  int first[kMany<Op> + 1];  // block
  Member<Op> member[kMany<Op>];
};

template <class Op>
__device__ __forceinline__ int find_member(const Table<Op>& table, int block) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first[middle] <= block ? low : high) = middle;
  }
  return low;
}

// Where the piece of this block lies.
struct Piece {
  __device__ Piece(const Rows& shape, int64_t unit)
      : row(unit / shape.pieces()),
        at(row * shape.inner + unit % shape.pieces() * kManyTile + threadIdx.x * kUnit),
        left((row + 1) * shape.inner - at) {}

  int64_t row, at, left;  // left: elements of the row from `at` on, or none
};

template <class T, int V, class Op>
__device__ __forceinline__ void map_piece(const Member<Op>& member, const Op& op, int64_t unit) {
  const Piece piece(member.shape, unit);
  const auto prepared = op.prepare(piece.row);
  if constexpr (requires { op.publish(prepared); })
    if (unit == 0 && threadIdx.x == 0) op.publish(prepared);
  if (piece.left <= 0) return;
  Unit<T, V> x = load_unit<V>(static_cast<const T*>(member.x) + piece.at, piece.left);
#pragma unroll
  for (int i = 0; i < kUnit; ++i) x[i] = store<T>(op.value(load(x[i]), prepared));
  store_unit<V>(static_cast<T*>(member.out) + piece.at, x, piece.left);
}

template <class T, int V, class Op>
__device__ __forceinline__ void backward_piece(
    const Member<Op>& member, const Op& op, int64_t unit) {
  const Piece piece(member.shape, unit);
  const auto prepared = op.prepare(piece.row);
  float sums[Op::kSums > 0 ? Op::kSums : 1] = {};
  Unit<T, V> g = load_unit<V>(static_cast<const T*>(member.grad) + piece.at, piece.left);
  const Unit<T, V> x = load_unit<V>(static_cast<const T*>(member.x) + piece.at, piece.left);
#pragma unroll
  for (int i = 0; i < kUnit; ++i) {
    if (i >= piece.left) continue;
    const auto one = op.gradient(load(g[i]), load(x[i]), prepared);
    g[i] = store<T>(one.dx);
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) sums[s] += one.sums[s];
  }
  if constexpr (Op::kHasDx)
    if (piece.left > 0) store_unit<V>(static_cast<T*>(member.out) + piece.at, g, piece.left);
  const int64_t units = member.shape.rows * member.shape.pieces();
#pragma unroll
  for (int s = 0; s < Op::kSums; ++s) {
    const float total = block_sum<kThreads>(sums[s]);
    if (threadIdx.x == 0) member.partials[s * units + unit] = total;
    __syncthreads();
  }
}

template <class T, class Op>
__global__ void __launch_bounds__(kThreads) map_many_kernel(
    const __grid_constant__ Table<Op> table) {
  const int m = find_member(table, blockIdx.x), unit = blockIdx.x - table.first[m];
  const Member<Op>& member = table.member[m];
  if (member.vectorize)
    map_piece<T, kVector<T>>(member, member.op, unit);
  else
    map_piece<T, 1>(member, member.op, unit);
}

template <class T, class Op>
__global__ void __launch_bounds__(kThreads) backward_many_kernel(
    const __grid_constant__ Table<Op> table) {
  const int m = find_member(table, blockIdx.x), unit = blockIdx.x - table.first[m];
  const Member<Op>& member = table.member[m];
  if (member.vectorize)
    backward_piece<T, kVector<T>>(member, member.op, unit);
  else
    backward_piece<T, 1>(member, member.op, unit);
}

// What the fold of one tensor's partials takes: sums [kSums, rows, pieces] -> out[s] [rows].
struct Folded {
  const float* partials;
  float* out[2];
  int64_t rows, pieces;
  int sums;
  float scale;

  __host__ __device__ int64_t outputs() const { return sums * rows; }
};

struct FoldTable {
  static constexpr int kCount = (kParameterBytes - 64) / int(sizeof(Folded) + sizeof(int));
  int count;
  int first[kCount + 1];  // warp
  Folded member[kCount];
};

// One warp: one output, in fp64 and in one order.
static __global__ void __launch_bounds__(kThreads) fold_many_kernel(
    const __grid_constant__ FoldTable table) {
  const int warp = int(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp >= table.first[table.count]) return;
  int m = 0;
  while (table.first[m + 1] <= warp) ++m;
  const Folded& one = table.member[m];
  const int64_t place = warp - table.first[m];
  double sum = 0;
  for (int64_t i = lane; i < one.pieces; i += 32) sum += one.partials[place * one.pieces + i];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
  if (lane == 0) one.out[place / one.rows][place % one.rows] = float(sum * one.scale);
}

}  // namespace daqakd::cuda
