#include "../ops.h"
#include "ewgs.cuh"
#include "many.cuh"

namespace daqakd::cuda {

Tensors ewgs_many_forward(Tensors x, Tensors lower, Tensors upper, Integers bits) {
  check_ewgs_many(x, lower, upper, bits);
  const Launch launch(x[0]);
  Tensors y;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = dense(x[i]);
    lower[i] = as_parameter(lower[i], ScalarType::Float);
    upper[i] = as_parameter(upper[i], ScalarType::Float);
    y.push_back(empty_as(x[i]));
  }
  by_dtype(x[0], [&](auto element) {
    using T = decltype(element);
    map_many<T, DeviceEWGS>(launch, x, y, [&](size_t i) {
      return TensorOp<DeviceEWGS>{
          {{}, data<float>(lower[i]), data<float>(upper[i]), nullptr, bits[i], 0.0f}, 1};
    });
  });
  return y;
}

tuple<Tensors, Tensors, Tensors> ewgs_many_backward(
    Tensors grad, Tensors x, Tensors lower, Tensors upper, Integers bits, double delta,
    optional<Tensor> delta_tensor) {
  check_ewgs_many_backward(grad, x, lower, upper, bits, delta, delta_tensor);
  const Launch launch(x[0]);
  if (delta_tensor) delta_tensor = as_parameter(*delta_tensor, ScalarType::Float);
  const float* scale = delta_tensor ? data<float>(*delta_tensor) : nullptr;
  Tensors dx, dlower, dupper;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = dense(x[i]);
    grad[i] = in_strides_of(grad[i], x[i]);
    dlower.push_back(empty_contiguous(lower[i], ScalarType::Float));
    dupper.push_back(empty_contiguous(upper[i], ScalarType::Float));
    lower[i] = as_parameter(lower[i], ScalarType::Float);
    upper[i] = as_parameter(upper[i], ScalarType::Float);
    dx.push_back(empty_as(x[i]));
  }
  by_dtype(x[0], [&](auto element) {
    using T = decltype(element);
    const auto op = [&](size_t i) {
      return TensorOp<DeviceEWGS>{
          {{}, data<float>(lower[i]), data<float>(upper[i]), scale, bits[i], float(delta)}, 1};
    };
    backward_many<T, DeviceEWGS>(launch, grad, x, dx, op, {{&dlower, &dupper}, {}});
  });
  return {dx, dlower, dupper};
}

}  // namespace daqakd::cuda
