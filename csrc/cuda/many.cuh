#pragma once

#include <algorithm>
#include <iterator>

#include "many_kernels.cuh"

namespace daqakd::cuda {

// Fills tables with tasks and launches each when it is full; fill() returns a task's blocks.
template <class Table>
void launch_tables(size_t tasks, const auto& fill, const auto& go) {
  Table table;
  constexpr size_t kCount = std::size(Table{}.task);
  for (size_t done = 0; done < tasks; done += kCount) {
    table.count = int(std::min(kCount, tasks - done));
    table.first[0] = 0;
    for (int m = 0; m < table.count; ++m)
      table.first[m + 1] = table.first[m] + int(fill(table.task[m], done + m));
    if (table.first[table.count] > 0) go(table, table.first[table.count]);
  }
}

// The op of a tensor, and how many rows the tensor has; a tensor of no rows is left out.
template <class Op>
struct TensorOp {
  Op op;
  int64_t rows;

  Runs runs(const Tensor& x) const { return {1, rows, x.numel() / std::max<int64_t>(1, rows)}; }
};

template <class T, class Op>
TensorTask<Op> make_task(const Tensor& x, const void* grad, void* out, const TensorOp<Op>& with) {
  const bool all_aligned = aligned({data<T>(x), grad, out});
  return {data<T>(x),         grad, out,         nullptr, {}, with.rows,
          with.runs(x).inner, 1.0f, all_aligned, with.op};
}

// y of every x; op(i) gives the op of the i-th and its rows.
template <class T, class Op>
void map_many(const Launch& launch, const Tensors& x, const Tensors& y, const auto& op) {
  const auto fill = [&](TensorTask<Op>& task, size_t i) {
    task = make_task<T, Op>(x[i], nullptr, mutable_data<T>(y[i]), op(i));
    return task.runs().across();
  };
  launch_tables<TaskTable<Op>>(x.size(), fill, [&](const TaskTable<Op>& table, int64_t blocks) {
    launch(map_many_kernel<T, Op>, blocks, kThreads, table);
  });
}

// The partials of every tensor: [kSums, rows, segments] each, one after the other.
struct Partials {
  Tensor memory;
  std::vector<int64_t> first;
  std::vector<Runs> shape;

  float* of(size_t i) const { return mutable_data<float>(memory) + first[i]; }
};

template <int kSums>
Partials partials_of(const Tensors& x, const auto& op) {
  Partials found{x[0], {}, {}};
  int64_t size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    found.shape.push_back(op(i).runs(x[i]));
    found.first.push_back(size);
    size += kSums * found.shape.back().across();
  }
  found.memory = scratch(x[0], std::max<int64_t>(1, size));
  return found;
}

// Where sum s of tensor i goes, times scale[i]: into out[s][i], [rows]; nowhere without out.
struct SumsOf {
  std::vector<const Tensors*> out;
  std::vector<float> scale;

  template <class Task>
  void enter(Task& task, size_t i) const {
    for (size_t s = 0; s < out.size(); ++s) task.sums[s] = mutable_data<float>((*out[s])[i]);
    if (!scale.empty()) task.scale = scale[i];
  }
  // Of the last block, to add up what several blocks have left.
  int64_t fold_steps(const Partials& partials) const {
    int64_t steps = 0;
    for (const Runs& shape : partials.shape)
      if (shape.segments > 1)
        steps += cuda::fold_steps(int64_t(out.size()) * shape.channels, shape.segments);
    return steps;
  }
};

inline void reduce_many(const Launch& launch, const Partials& partials, const SumsOf& sums) {
  const auto fill = [&](ReduceTask& task, size_t i) {
    const Runs& shape = partials.shape[i];
    task = {partials.of(i), {}, shape.channels, shape.segments, int(sums.out.size()), 1.0f};
    sums.enter(task, i);
    return shape.segments > 1 ? task.outputs() : 0;
  };
  launch_tables<ReduceTable>(
      partials.shape.size(), fill, [&](const ReduceTable& table, int64_t warps) {
        launch(reduce_many_kernel, ceil_div(warps, kThreads / 32), kThreads, table);
      });
}

// dx of every x, unless the op has none, and the sums; without any, the partials are for the
// caller's next launch.
template <class T, class Op>
Partials backward_many(
    const Launch& launch, const Tensors& grad, const Tensors& x, const Tensors& dx, const auto& op,
    const SumsOf& sums = {}) {
  Partials partials = partials_of<Op::kSums>(x, op);
  const int64_t steps = sums.fold_steps(partials);
  const bool folds = 0 < steps && steps <= kMostFoldSteps;
  const LaunchCounter counter(launch, x[0], folds);
  const auto fill = [&](TensorTask<Op>& task, size_t i) {
    void* out = Op::kHasDx ? mutable_data<T>(dx[i]) : nullptr;
    task = make_task<T, Op>(x[i], data<T>(grad[i]), out, op(i));
    task.partials = partials.of(i);
    sums.enter(task, i);
    return task.runs().across();
  };
  launch_tables<TaskTable<Op>>(x.size(), fill, [&](const TaskTable<Op>& table, int64_t blocks) {
    launch(backward_many_kernel<T, Op>, blocks, kThreads, table, folds, counter.get());
  });
  if (!folds) reduce_many(launch, partials, sums);
  return partials;
}

// Whether the dense `x` is so many rows, one after the other in memory.
inline bool is_rows(const Tensor& x, int64_t rows) {
  return rows <= 1 || x.numel() == 0 || x.stride(0) * rows == x.numel();
}

}  // namespace daqakd::cuda
