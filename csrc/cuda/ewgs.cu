#include "../ops.h"
#include "backward.cuh"
#include "ewgs.cuh"

namespace daqakd::cuda {
Tensor ewgs_forward(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits) {
  check_ewgs(x, lower, upper, bits);
  const Launch launch(x);
  const Tensor input = dense(x);
  const Tensor low = as_parameter(lower, ScalarType::Float);
  const Tensor high = as_parameter(upper, ScalarType::Float);
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  const DeviceEWGS op{{}, data<float>(low), data<float>(high), nullptr, bits, 0.0f};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    map<T>(launch, view_of(input, std::nullopt), data<T>(input), mutable_data<T>(y), nullptr, op);
  });
  return y;
}

tuple<Tensor, Tensor, Tensor> ewgs_backward(
    const Tensor& grad, const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits,
    double delta, optional<Tensor> delta_tensor) {
  check_ewgs_backward(grad, x, lower, upper, bits, delta, delta_tensor);
  const Launch launch(x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor low = as_parameter(lower, ScalarType::Float);
  const Tensor high = as_parameter(upper, ScalarType::Float);
  const Tensor scale = delta_tensor ? as_parameter(*delta_tensor, ScalarType::Float) : low;
  Tensor dx = empty_as(input), dlower = empty_contiguous(lower, ScalarType::Float);
  Tensor dupper = empty_contiguous(upper, ScalarType::Float);
  if (x.numel() == 0) return {dx, torch::stable::zero_(dlower), torch::stable::zero_(dupper)};
  const float* delta_data = delta_tensor ? data<float>(scale) : nullptr;
  const DeviceEWGS op{{}, data<float>(low), data<float>(high), delta_data, bits, float(delta)};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<T>(input), mutable_data<T>(dx)};
    flat_backward(
        launch, input, to, {mutable_data<float>(dlower), mutable_data<float>(dupper)}, op);
  });
  return {dx, dlower, dupper};
}

}  // namespace daqakd::cuda
