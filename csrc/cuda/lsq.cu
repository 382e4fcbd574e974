#include "../formulas/lsq.h"

#include "../ops.h"
#include "backward.cuh"
#include "channel_forward.cuh"

namespace daqakd::cuda {
namespace {

PerChannel<LSQ<float>> op_of(const Tensor& steps, int64_t qmin, int64_t qmax, STE ste) {
  return {{data<float>(steps)}, {lsq_range<float>(qmin, qmax, ste)}};
}

}  // namespace

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, optional<int64_t> axis) {
  check_lsq(x, step, qmin, qmax, axis);
  const Launch launch(x);
  const Tensor input = dense(x), steps = as_parameter(step, ScalarType::Float);
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  const auto op = op_of(steps, qmin, qmax, STE::closed);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    channel_forward<T>(launch, view_of(input, axis), data<T>(input), mutable_data<T>(y), op);
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
  const auto op = op_of(steps, qmin, qmax, STE(ste));
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<T>(input), mutable_data<T>(dx)};
    ChannelBackward{launch, view, ds, float(grad_scale), to, op}();
  });
  return {dx, ds};
}

}  // namespace daqakd::cuda
