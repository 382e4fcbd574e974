#pragma once

#include "elementwise.cuh"

// The tensors of a model in one launch: their table travels in the kernel's parameters, so that
// nothing is copied to the device and a CUDA graph can capture it. A tensor is rows of one
// parameter each; a block takes one segment of a row. Ops are as in elementwise.cuh, one per
// tensor; all threads of a block call prepare() together, and an op may add
//   publish(prepared)     called by one thread of the tensor
namespace daqakd::cuda {

constexpr int kManyTile = kBlockElements;  // elements of a block: one fragment per thread
constexpr int kParameterBytes = 4096;      // what a launch can carry on every GPU

struct RowShape {
  int64_t rows, inner;
  // An empty tensor has one, whose block writes an empty sum.
  __host__ __device__ int64_t segments() const {
    return inner <= kManyTile ? 1 : (inner + kManyTile - 1) / kManyTile;
  }
};

template <class Op>
struct TensorTask {
  const void *x, *grad;  // [rows, inner]; grad is null forward
  void* out;             // [rows, inner], or null for an op without
  float* partials;       // [kSums, rows, segments]
  RowShape shape;
  bool vectorize;
  Op op;
};

template <class Op>
constexpr int kTasks = (kParameterBytes - 64) / int(sizeof(TensorTask<Op>) + sizeof(int));

template <class Op>
struct TaskTable {
  int count;
  int first[kTasks<Op> + 1];  // block
  TensorTask<Op> task[kTasks<Op>];
};

template <class Op>
__device__ __forceinline__ int find_task(const TaskTable<Op>& table, int block) {
  int low = 0, high = table.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (table.first[middle] <= block ? low : high) = middle;
  }
  return low;
}

// Where the segment of this block lies.
struct Segment {
  __device__ Segment(const RowShape& shape, int64_t block)
      : row(block / shape.segments()),
        at(row * shape.inner + block % shape.segments() * kManyTile + threadIdx.x * kFragment),
        left((row + 1) * shape.inner - at) {}

  int64_t row, at, left;  // left: elements of the row from `at` on, or none
};

template <class T, int V, class Op>
__device__ __forceinline__ void map_segment(
    const TensorTask<Op>& task, const Op& op, int64_t block) {
  const Segment segment(task.shape, block);
  const auto prepared = op.prepare(segment.row);
  if constexpr (requires { op.publish(prepared); })
    if (block == 0 && threadIdx.x == 0) op.publish(prepared);
  if (segment.left <= 0) return;
  Fragment<T, V> x = load_fragment<V>(static_cast<const T*>(task.x) + segment.at, segment.left);
#pragma unroll
  for (int i = 0; i < kFragment; ++i) x[i] = store<T>(op.value(load(x[i]), prepared));
  store_fragment<V>(static_cast<T*>(task.out) + segment.at, x, segment.left);
}

template <class T, int V, class Op>
__device__ __forceinline__ void backward_segment(
    const TensorTask<Op>& task, const Op& op, int64_t block) {
  const Segment segment(task.shape, block);
  const auto prepared = op.prepare(segment.row);
  float sums[Op::kSums > 0 ? Op::kSums : 1] = {};
  Fragment<T, V> g = load_fragment<V>(static_cast<const T*>(task.grad) + segment.at, segment.left);
  const Fragment<T, V> x =
      load_fragment<V>(static_cast<const T*>(task.x) + segment.at, segment.left);
#pragma unroll
  for (int i = 0; i < kFragment; ++i) {
    if (i >= segment.left) continue;
    const auto one = op.gradient(load(g[i]), load(x[i]), prepared);
    g[i] = store<T>(one.dx);
#pragma unroll
    for (int s = 0; s < Op::kSums; ++s) sums[s] += one.sums[s];
  }
  if constexpr (Op::kHasDx)
    if (segment.left > 0)
      store_fragment<V>(static_cast<T*>(task.out) + segment.at, g, segment.left);
  const int64_t blocks = task.shape.rows * task.shape.segments();
#pragma unroll
  for (int s = 0; s < Op::kSums; ++s) {
    const float total = block_sum<kThreads>(sums[s]);
    if (threadIdx.x == 0) task.partials[s * blocks + block] = total;
    __syncthreads();
  }
}

template <class T, class Op>
__global__ void __launch_bounds__(kThreads)
    map_many_kernel(const __grid_constant__ TaskTable<Op> table) {
  const int m = find_task(table, blockIdx.x), block = blockIdx.x - table.first[m];
  const TensorTask<Op>& task = table.task[m];
  if (task.vectorize)
    map_segment<T, kVector<T>>(task, task.op, block);
  else
    map_segment<T, 1>(task, task.op, block);
}

template <class T, class Op>
__global__ void __launch_bounds__(kThreads)
    backward_many_kernel(const __grid_constant__ TaskTable<Op> table) {
  const int m = find_task(table, blockIdx.x), block = blockIdx.x - table.first[m];
  const TensorTask<Op>& task = table.task[m];
  if (task.vectorize)
    backward_segment<T, kVector<T>>(task, task.op, block);
  else
    backward_segment<T, 1>(task, task.op, block);
}

// The reduction of one tensor's partials: [kSums, rows, segments] -> out[s] [rows].
struct ReduceTask {
  const float* partials;
  float* out[2];
  int64_t rows, segments;
  int sums;
  float scale;

  __host__ __device__ int64_t outputs() const { return sums * rows; }
};

struct ReduceTable {
  static constexpr int kCount = (kParameterBytes - 64) / int(sizeof(ReduceTask) + sizeof(int));
  int count;
  int first[kCount + 1];  // warp
  ReduceTask task[kCount];
};

// One warp: one output, in fp64 and in one order.
static __global__ void __launch_bounds__(kThreads)
    reduce_many_kernel(const __grid_constant__ ReduceTable table) {
  const int warp = int(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (warp >= table.first[table.count]) return;
  int m = 0;
  while (table.first[m + 1] <= warp) ++m;
  const ReduceTask& one = table.task[m];
  const int64_t output = warp - table.first[m];
  double sum = 0;
  for (int64_t i = lane; i < one.segments; i += 32) sum += one.partials[output * one.segments + i];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_down_sync(~0u, sum, offset);
  if (lane == 0) one.out[output / one.rows][output % one.rows] = float(sum * one.scale);
}

}  // namespace daqakd::cuda
