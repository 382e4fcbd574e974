#pragma once

#include <algorithm>
#include <iterator>

#include "many_kernels.cuh"

namespace daqakd::cuda {

// Fills tables with members and launches each when it is full; fill() returns a member's blocks.
template <class Table>
void in_tables(size_t members, const auto& fill, const auto& go) {
  Table table;
  constexpr size_t kCount = std::size(Table{}.member);
  for (size_t done = 0; done < members; done += kCount) {
    table.count = int(std::min(kCount, members - done));
    table.first[0] = 0;
    for (int m = 0; m < table.count; ++m)
      table.first[m + 1] = table.first[m] + int(fill(table.member[m], done + m));
    if (table.first[table.count] > 0) go(table, table.first[table.count]);
  }
}

template <class Op>
struct OfRows {
  Op op;
  int64_t rows;
};

template <class T, class Op>
Member<Op> member_of(const Tensor& x, const void* grad, void* out, const OfRows<Op>& with) {
  const Rows shape{with.rows, x.numel() / std::max<int64_t>(1, with.rows)};
  const bool starts = with.rows == 1 || shape.inner % kVector<T> == 0;
  const bool vectorize = starts && aligned({data<T>(x), grad, out});
  return {data<T>(x), grad, out, nullptr, shape, vectorize, with.op};
}

template <class Op>
int64_t blocks_of(const Member<Op>& member) {
  return member.shape.rows * member.shape.pieces();
}

// y of every x; op(i) gives the op of the i-th and its rows.
template <class T, class Op>
void map_many(const Launch& launch, const Tensors& x, const Tensors& y, const auto& op) {
  const auto fill = [&](Member<Op>& member, size_t i) {
    member = member_of<T, Op>(x[i], nullptr, mutable_data<T>(y[i]), op(i));
    return blocks_of(member);
  };
  in_tables<Table<Op>>(x.size(), fill, [&](const Table<Op>& table, int64_t blocks) {
    launch(map_many_kernel<T, Op>, blocks, kThreads, table);
  });
}

// The partials of every tensor: [kSums, rows, pieces] each, one after the other.
struct Partials {
  Tensor memory;
  std::vector<int64_t> first;
  std::vector<Rows> shape;

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
    size += kSums * rows * found.shape.back().pieces();
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
  const auto fill = [&](Member<Op>& member, size_t i) {
    void* out = Op::kHasDx ? mutable_data<T>(dx[i]) : nullptr;
    member = member_of<T, Op>(x[i], data<T>(grad[i]), out, op(i));
    member.partials = partials.of(i);
    return blocks_of(member);
  };
  in_tables<Table<Op>>(x.size(), fill, [&](const Table<Op>& table, int64_t blocks) {
    launch(backward_many_kernel<T, Op>, blocks, kThreads, table);
  });
  return partials;
}

// Sum s of tensor i, times scale(i), into outputs[s][i], each [rows].
inline void fold_many(
    const Launch& launch, const Partials& partials, std::vector<const Tensors*> outputs,
    const auto& scale) {
  const auto fill = [&](Folded& member, size_t i) {
    const Rows& shape = partials.shape[i];
    member = {partials.of(i), {}, shape.rows, shape.pieces(), int(outputs.size()), scale(i)};
    for (size_t s = 0; s < outputs.size(); ++s)
      member.out[s] = mutable_data<float>((*outputs[s])[i]);
    return member.outputs();
  };
  in_tables<FoldTable>(partials.shape.size(), fill, [&](const FoldTable& table, int64_t warps) {
    launch(fold_many_kernel, ceil_div(warps, kThreads / 32), kThreads, table);
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
