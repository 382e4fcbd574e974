#pragma once

#include "backward_kernels.cuh"

namespace daqakd::cuda {

// The tensors of one backward launch, dense with the same strides.
template <class T>
struct Gradients {
  template <class Op>
  bool are_aligned() const {
    return aligned({grad, dx}) && (Op::kBits > 0 || aligned({other}));
  }

  const T* grad;
  const void* other;  // the input, or its mask
  T* dx;              // null for an op without
};

// dx; returns the partial sums of all elements, [kSums, blocks] of Runs(1, 1, numel).
template <class T, class Op>
Tensor flat_partials(
    const Launch& launch, const Tensor& model, const Gradients<T>& to, const Op& op) {
  const Runs plan(1, 1, model.numel());
  const Tensor partials = scratch(model, std::max<int64_t>(1, Op::kSums * plan.blocks()));
  launch(
      backward_runs<T, kVector<T>, false, Op>, plan.blocks(), kThreads, to.grad, to.other, to.dx,
      mutable_data<float>(partials), plan, to.template are_aligned<Op>(), 1.0f, op);
  return partials;
}

// dx, and sums[k] = op's sum k over all elements.
template <class T, class Op>
void flat_backward(
    const Launch& launch, const Tensor& model, const Gradients<T>& to,
    std::initializer_list<float*> sums, const Op& op) {
  const Tensor partials = flat_partials(launch, model, to, op);
  const Reduction shape = Runs(1, 1, model.numel()).reduction();
  const float* from = data<float>(partials);
  for (float* sum : sums) {
    launch(reduce_kernel, 1, kReduceThreads, from, shape, 1.0f, sum);
    from += shape.terms();
  }
}

// dx, and out [channels] = op's sum times `scale`.
template <class T, class Op>
struct ChannelBackward {
  const Launch& launch;
  const View& view;
  const Tensor& out;
  float scale;
  Gradients<T> to;
  Op op;

  void operator()() const {
    if (has_columns(view)) return by_columns();
    const Runs plan(view);
    if (has_whole_packs<T>(view.outer * view.channels, view.inner))
      by_runs<kVector<T>>(plan);
    else
      by_runs<1>(plan);
  }

  void by_columns() const {
    const Columns<kVector<T>> plan(view);
    const Tensor partials = scratch(out, plan.down() * plan.width);
    go(backward_columns<T, Op>, plan, partials, 1.0f);
    reduce(partials, plan.reduction());
  }

  template <int W>
  void by_runs(const Runs& plan) const {
    const auto kernel =
        plan.has_groups() ? backward_runs<T, W, true, Op> : backward_runs<T, W, false, Op>;
    if (plan.reduction().terms() == 1) return go(kernel, plan, out, scale);
    const Tensor partials = scratch(out, plan.blocks());
    go(kernel, plan, partials, 1.0f);
    reduce(partials, plan.reduction());
  }

  void go(const auto& kernel, const auto& plan, const Tensor& sums, float factor) const {
    launch(
        kernel, plan.blocks(), kThreads, to.grad, to.other, to.dx, mutable_data<float>(sums), plan,
        to.template are_aligned<Op>(), factor, op);
  }

  void reduce(const Tensor& partials, const Reduction& shape) const {
    launch(
        reduce_kernel, view.channels, kReduceThreads, data<float>(partials), shape, scale,
        mutable_data<float>(out));
  }
};

}  // namespace daqakd::cuda
