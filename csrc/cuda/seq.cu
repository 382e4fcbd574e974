#include "../formulas/seq.h"

#include "../ops.h"
#include "backward.cuh"
#include "channel_forward.cuh"

namespace daqakd::cuda {
namespace {

PerChannel<SEQ<float>> op_of(const Tensor& steps, int64_t levels) {
  return {{data<float>(steps)}, {seq_range<float>(levels)}};
}

}  // namespace

Tensor seq_forward(const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis) {
  check_seq(x, step, levels, axis);
  const Launch launch(x);
  const Tensor input = dense(x), steps = as_parameter(step, ScalarType::Float);
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  const auto op = op_of(steps, levels);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    channel_forward<T>(launch, view_of(input, axis), data<T>(input), mutable_data<T>(y), op);
  });
  return y;
}

tuple<Tensor, Tensor> seq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis,
    double grad_scale) {
  check_seq_backward(grad, x, step, levels, axis, grad_scale);
  const Launch launch(x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, ScalarType::Float);
  Tensor dx = empty_as(input), ds = empty_contiguous(step, ScalarType::Float);
  if (x.numel() == 0) return {dx, torch::stable::zero_(ds)};
  const View view = view_of(input, axis);
  const auto op = op_of(steps, levels);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<T>(input), mutable_data<T>(dx)};
    ChannelBackward{launch, view, ds, float(grad_scale), to, op}();
  });
  return {dx, ds};
}

}  // namespace daqakd::cuda
