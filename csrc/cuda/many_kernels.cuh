#pragma once

#include "backward_kernels.cuh"

// The tensors of a model in one launch: their table travels in the kernel's parameters, so that
// nothing is copied to the device and a CUDA graph can capture it. A tensor is rows of one
// parameter each; a block takes one tile of a row, as the op on one tensor does, with the same
// bits. Ops are as in elementwise.cuh, one per tensor; all threads of a block call prepare()
// together, and an op may add
//   publish(prepared)     called by one thread of the tensor
namespace daqakd::cuda {

constexpr int kParameterBytes = 4096;  // what a launch can carry on every GPU

template <class Op>
struct TensorTask {
  const void *x, *grad;  // [rows, inner]; grad is null forward
  void* out;             // [rows, inner], or null for an op without
  float* partials;       // [kSums, rows, segments]
  float* sums[2];        // [rows] each, or null where a later launch takes the partials
  int64_t rows, inner;
  float scale;  // of sums
  bool aligned;
  Op op;

  __host__ __device__ Runs runs() const { return {1, rows, inner}; }
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

template <class T, int W, class Op>
__device__ __forceinline__ void map_task(const TensorTask<Op>& task, int block) {
  const Tile<false> tile(task.runs(), block);
  const auto prepared = task.op.prepare(tile.channel);
  if constexpr (requires { task.op.publish(prepared); })
    if (block == 0 && threadIdx.x == 0) task.op.publish(prepared);
  map_tile<W>(
      static_cast<const T*>(task.x), static_cast<T*>(task.out), tile, task.aligned, task.op,
      prepared);
}

template <class T, int W, class Op>
__device__ __forceinline__ void backward_task(const TensorTask<Op>& task, int block) {
  const Runs plan = task.runs();
  const Tile<false> tile(plan, block);
  const decltype(task.op.prepare(0)) prepared[1] = {task.op.prepare(tile.channel)};
  float sums[1][kSumsOf<Op>] = {};
  backward_tile<W>(
      static_cast<const T*>(task.grad), task.x, static_cast<T*>(task.out), tile, task.aligned,
      task.op, prepared, sums);
  const bool whole = task.sums[0] && plan.segments == 1;  // a block has all of its row
  store_sums<Op::kSums>(sums[0], whole ? task.scale : 1.0f, [&](int s) {
    return whole ? task.sums[s] + block : task.partials + s * plan.across() + block;
  });
}

// The sums of rows that several blocks have, a warp each, with the bits that reduce_kernel has.
template <class Op>
__device__ __forceinline__ void fold_tasks(const TaskTable<Op>& table) {
  int first = 0, next = threadIdx.x / 32;  // outputs
  for (int m = 0; m < table.count; ++m) {
    const TensorTask<Op>& task = table.task[m];
    const int rows = int(task.rows), blocks = table.first[m + 1] - table.first[m];
    if (blocks <= rows) continue;
    const int segments = blocks / rows;
    for (; next < first + Op::kSums * rows; next += kFoldWarps) {
      const int output = next - first;
      const float* partials = task.partials + int64_t(output) * segments;
      const double sum = warp_total(segments, [&](int64_t i) { return __ldcg(partials + i); });
      if (threadIdx.x % 32 == 0) task.sums[output / rows][output % rows] = float(sum * task.scale);
    }
    first += Op::kSums * rows;
  }
}

template <class T, class Op>
__global__ void __launch_bounds__(kThreads)
    map_many_kernel(const __grid_constant__ TaskTable<Op> table) {
  const int m = find_task(table, blockIdx.x), block = blockIdx.x - table.first[m];
  const TensorTask<Op>& task = table.task[m];
  if (has_whole_packs<T>(task.rows, task.inner))
    map_task<T, kVector<T>>(task, block);
  else
    map_task<T, 1>(task, block);
}

template <class T, class Op>
__global__ void __launch_bounds__(kThreads, kBlocks)
    backward_many_kernel(const __grid_constant__ TaskTable<Op> table, bool folds, Counter counter) {
  const int m = find_task(table, blockIdx.x), block = blockIdx.x - table.first[m];
  const TensorTask<Op>& task = table.task[m];
  if (has_whole_packs<T>(task.rows, task.inner))
    backward_task<T, kVector<T>>(task, block);
  else
    backward_task<T, 1>(task, block);
  if constexpr (Op::kSums > 0)
    if (folds && counter.is_last()) fold_tasks(table);
}

// The reduction of one tensor's partials where they are many: [kinds, rows, segments] -> sums.
struct ReduceTask {
  const float* partials;
  float* sums[2];  // [rows]
  int64_t rows, segments;
  int kinds;
  float scale;

  __host__ __device__ int64_t outputs() const { return kinds * rows; }
};

struct ReduceTable {
  static constexpr int kCount = (kParameterBytes - 64) / int(sizeof(ReduceTask) + sizeof(int));
  int count;
  int first[kCount + 1];  // warp
  ReduceTask task[kCount];
};

// One warp: one output, with the bits that reduce_kernel has for it.
static __global__ void __launch_bounds__(kThreads)
    reduce_many_kernel(const __grid_constant__ ReduceTable table) {
  const int warp = int(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (warp >= table.first[table.count]) return;
  int m = 0;
  while (table.first[m + 1] <= warp) ++m;
  const ReduceTask& one = table.task[m];
  const int64_t output = warp - table.first[m];
  const float* partials = one.partials + output * one.segments;
  const double sum = warp_total(one.segments, [&](int64_t i) { return partials[i]; });
  if (threadIdx.x % 32 == 0)
    one.sums[output / one.rows][output % one.rows] = float(sum * one.scale);
}

}  // namespace daqakd::cuda
