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

// The op of a tensor, and how many rows the tensor has.
template <class Op>
struct TensorOp {
  Op op;
  int64_t rows;
};

template <class T, class Op>
TensorTask<Op> make_task(const Tensor& x, const void* grad, void* out, const TensorOp<Op>& with) {
  const RowShape shape{with.rows, x.numel() / std::max<int64_t>(1, with.rows)};
  const bool starts = with.rows == 1 || shape.inner % kVector<T> == 0;
  const bool vectorize = starts && aligned({data<T>(x), grad, out});
  return {data<T>(x), grad, out, nullptr, shape, vectorize, with.op};
}

template <class Op>
int64_t blocks_of(const TensorTask<Op>& task) {
  return task.shape.rows * task.shape.segments();
}

// y of every x; op(i) gives the op of the i-th and its rows.
template <class T, class Op>
void map_many(const Launch& launch, const Tensors& x, const Tensors& y, const auto& op) {
  const auto fill = [&](TensorTask<Op>& task, size_t i) {
    task = make_task<T, Op>(x[i], nullptr, mutable_data<T>(y[i]), op(i));
    return blocks_of(task);
  };
  launch_tables<TaskTable<Op>>(x.size(), fill, [&](const TaskTable<Op>& table, int64_t blocks) {
    launch(map_many_kernel<T, Op>, blocks, kThreads, table);
  });
}

// The partials of every tensor: [kSums, rows, segments] each, one after the other.
struct Partials {
  Tensor memory;
  std::vector<int64_t> first;
  std::vector<RowShape> shape;

  float* of(size_t i) const { return mutable_data<float>(memory) + first[i]; }
};

template <int kSums>
Partials partials_of(const Tensors& x, const auto& op) {
  Partials found{x[0], {}, {}};
  int64_t size = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t rows = op(i).rows;
    found.shape.push_back({rows, x[i].numel() / std::max<int64_t>(1, rows)});
    found.first.push_back(size);
    size += kSums * rows * found.shape.back().segments();
  }
  found.memory = scratch(x[0], std::max<int64_t>(1, size));
  return found;
}

// dx of every x, unless the op has none, and the partial sums.
template <class T, class Op>
Partials backward_many(
    const Launch& launch, const Tensors& grad, const Tensors& x, const Tensors& dx,
    const auto& op) {
  Partials partials = partials_of<Op::kSums>(x, op);
  const auto fill = [&](TensorTask<Op>& task, size_t i) {
    void* out = Op::kHasDx ? mutable_data<T>(dx[i]) : nullptr;
    task = make_task<T, Op>(x[i], data<T>(grad[i]), out, op(i));
    task.partials = partials.of(i);
    return blocks_of(task);
  };
  launch_tables<TaskTable<Op>>(x.size(), fill, [&](const TaskTable<Op>& table, int64_t blocks) {
    launch(backward_many_kernel<T, Op>, blocks, kThreads, table);
  });
  return partials;
}

// Sum s of tensor i, times scale(i), into outputs[s][i], each [rows].
inline void reduce_many(
    const Launch& launch, const Partials& partials, std::vector<const Tensors*> outputs,
    const auto& scale) {
  const auto fill = [&](ReduceTask& task, size_t i) {
    const RowShape& shape = partials.shape[i];
    task = {partials.of(i), {}, shape.rows, shape.segments(), int(outputs.size()), scale(i)};
    for (size_t s = 0; s < outputs.size(); ++s) task.out[s] = mutable_data<float>((*outputs[s])[i]);
    return task.outputs();
  };
  launch_tables<ReduceTable>(
      partials.shape.size(), fill, [&](const ReduceTable& table, int64_t warps) {
        launch(reduce_many_kernel, ceil_div(warps, kThreads / 32), kThreads, table);
      });
}

// Every tensor with the strides of its model.
inline Tensors in_strides_of_each(Tensors tensors, const Tensors& models) {
  for (size_t i = 0; i < tensors.size(); ++i) tensors[i] = in_strides_of(tensors[i], models[i]);
  return tensors;
}

// The dense `x` with its rows one after the other in memory: itself, or a copy.
inline Tensor in_rows(const Tensor& x, int64_t rows) {
  if (rows <= 1 || x.numel() == 0 || x.stride(0) * rows == x.numel()) return x;
  return torch::stable::contiguous(x);
}

}  // namespace daqakd::cuda
