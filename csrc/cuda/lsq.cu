#include "../ops.h"
#include "backward.cuh"
#include "lsq_kernels.cuh"

namespace daqakd::cuda {
namespace {

template <class T, int V>
void forward(const Launch& launch, const View& view, const T* x, T* y, const DeviceLSQ& op) {
  if (is_narrow(view)) {
    const Columns<V> plan(view);
    return launch(lsq_forward_columns<T, V>, plan.blocks(), kThreads, x, y, plan, op);
  }
  const Runs plan(view);
  const auto kernel =
      plan.has_groups() ? lsq_forward_runs<T, V, true> : lsq_forward_runs<T, V, false>;
  launch(kernel, plan.blocks(), kThreads, x, y, plan, op);
}

}  // namespace

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, optional<int64_t> axis) {
  check_lsq(x, step, qmin, qmax, axis);
  const Launch launch(x);
  const Tensor input = dense(x), steps = as_parameter(step, ScalarType::Float);
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  const View view = view_of(input, axis);
  const DeviceLSQ op{{data<float>(steps)}, {lsq_range<float>(qmin, qmax, STE::closed)}};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const T* from = data<T>(input);
    T* to = mutable_data<T>(y);
    const bool vectorize = can_vectorize<T>(view, {from, to});
    const auto run = vectorize ? forward<T, kVector<T>> : forward<T, 1>;
    run(launch, view, from, to, op);
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
  const DeviceLSQ op{{data<float>(steps)}, {lsq_range<float>(qmin, qmax, STE(ste))}};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<T>(input), mutable_data<T>(dx)};
    ChannelBackward{launch, view, ds, float(grad_scale), to, op}();
  });
  return {dx, ds};
}

}  // namespace daqakd::cuda
