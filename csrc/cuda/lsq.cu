#include "../ops.h"
#include "lsq_kernels.cuh"

namespace daqakd::cuda {
namespace {

template <class T, int V>
void forward(
    const Launch& launch, const View& view, const T* x, const float* step, T* y, Range range) {
  if (is_narrow(view)) {
    const Columns<V> plan(view);
    return launch(lsq_forward_columns<T, V>, plan.blocks(), kThreads, x, step, y, plan, range);
  }
  const Runs plan(view);
  const auto kernel =
      plan.has_groups() ? lsq_forward_runs<T, V, true> : lsq_forward_runs<T, V, false>;
  launch(kernel, plan.blocks(), kThreads, x, step, y, plan, range);
}

struct Backward {
  const Launch& launch;
  const View& view;
  const float* step;  // [channels]
  const Tensor& ds;   // [channels]
  Range range;
  float scale;

  template <class T, int V>
  void run(const T* grad, const T* x, T* dx) const {
    if (is_narrow(view)) return columns<T, V>(grad, x, dx);
    const Runs plan(view);
    const auto kernel =
        plan.has_groups() ? lsq_backward_runs<T, V, true> : lsq_backward_runs<T, V, false>;
    float* out = ds.mutable_data_ptr<float>();
    if (plan.reduction().terms() == 1)
      return launch(kernel, plan.blocks(), kThreads, grad, x, step, dx, out, plan, range, scale);
    const Tensor partials = scratch(ds, plan.blocks());
    float* sums = partials.mutable_data_ptr<float>();
    launch(kernel, plan.blocks(), kThreads, grad, x, step, dx, sums, plan, range, 1.0f);
    launch(reduce_kernel, view.channels, kReduceThreads, sums, plan.reduction(), scale, out);
  }

  template <class T, int V>
  void columns(const T* grad, const T* x, T* dx) const {
    const Columns<V> plan(view);
    const Tensor partials = scratch(ds, plan.down() * plan.width);
    float* sums = partials.mutable_data_ptr<float>();
    launch(
        lsq_backward_columns<T, V>, plan.blocks(), kThreads, grad, x, step, dx, sums, plan, range);
    launch(
        reduce_kernel, view.channels, kReduceThreads, sums, plan.reduction(), scale,
        ds.mutable_data_ptr<float>());
  }
};

}  // namespace

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, optional<int64_t> axis) {
  check_lsq(x, step, qmin, qmax, axis);
  const Launch launch(x);
  const Tensor input = dense(x), steps = as_parameter(step, ScalarType::Float);
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  const View view = view_of(input, axis);
  const auto range = lsq_range<float>(qmin, qmax, STE::closed);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const T* from = data<T>(input);
    T* to = mutable_data<T>(y);
    const bool vectorize = can_vectorize<T>(view, {from, to});
    const auto run = vectorize ? forward<T, kVector<T>> : forward<T, 1>;
    run(launch, view, from, data<float>(steps), to, range);
  });
  return y;
}

tuple<Tensor, Tensor> lsq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax,
    optional<int64_t> axis, int64_t ste, double grad_scale) {
  check_lsq_backward(grad, x, step, qmin, qmax, axis, ste, grad_scale);
  const Launch launch(x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, ScalarType::Float);
  Tensor dx = empty_as(input), ds = empty_contiguous(step, ScalarType::Float);
  if (x.numel() == 0) return {dx, torch::stable::zero_(ds)};
  const View view = view_of(input, axis);
  const auto range = lsq_range<float>(qmin, qmax, STE(ste));
  const Backward backward{launch, view, data<float>(steps), ds, range, float(grad_scale)};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const T *from = data<T>(input), *gradient = data<T>(g);
    T* to = mutable_data<T>(dx);
    if (can_vectorize<T>(view, {from, gradient, to}))
      backward.template run<T, kVector<T>>(gradient, from, to);
    else
      backward.template run<T, 1>(gradient, from, to);
  });
  return {dx, ds};
}

}  // namespace daqakd::cuda
