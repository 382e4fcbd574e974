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

// dx, and sums[k] = op's sum k over all elements times `scale`, or sums[0] = what the op makes of
// them.
template <class T, class Op>
void flat_backward(
    const Launch& launch, const Tensor& model, const Gradients<T>& to,
    std::initializer_list<float*> sums, const Op& op, float scale = 1.0f) {
  const Runs plan(1, 1, model.numel());
  const Tensor partials = scratch(model, std::max<int64_t>(1, Op::kSums * plan.blocks()));
  const LaunchCounter counter(launch, model, Op::kSums > 0 && plan.blocks() > 1);
  Fold fold{{}, plan.reduction(), scale, counter.get()};
  std::copy(sums.begin(), sums.end(), fold.out);
  launch(
      backward_runs<T, kVector<T>, false, Op>, plan.blocks(), kThreads, to.grad, to.other, to.dx,
      mutable_data<float>(partials), plan, to.template are_aligned<Op>(), 1.0f, op, fold);
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
    add_up(backward_columns<T, Op>, plan, plan.down() * plan.width);
  }

  template <int W>
  void by_runs(const Runs& plan) const {
    const auto kernel =
        plan.has_groups() ? backward_runs<T, W, true, Op> : backward_runs<T, W, false, Op>;
    if (plan.reduction().terms() == 1) return go(kernel, plan, out, scale, Fold{});
    add_up(kernel, plan, plan.blocks());
  }

  // With so many partial sums.
  void add_up(const auto& kernel, const auto& plan, int64_t size) const {
    const Tensor partials = scratch(out, size);
    const Reduction shape = plan.reduction();
    float* sums = mutable_data<float>(out);
    if (can_fold(shape)) {
      const LaunchCounter counter(launch, out, plan.blocks() > 1);
      return go(kernel, plan, partials, 1.0f, {{sums}, shape, scale, counter.get()});
    }
    go(kernel, plan, partials, 1.0f, Fold{});
    launch(reduce_kernel, view.channels, kReduceThreads, data<float>(partials), shape, scale, sums);
  }

  void go(const auto& kernel, const auto& plan, const Tensor& sums, float factor, const Fold& fold)
      const {
    launch(
        kernel, plan.blocks(), kThreads, to.grad, to.other, to.dx, mutable_data<float>(sums), plan,
        to.template are_aligned<Op>(), factor, op, fold);
  }
};

}  // namespace daqakd::cuda
