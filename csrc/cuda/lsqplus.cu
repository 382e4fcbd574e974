#include "../formulas/lsqplus.h"

#include "../ops.h"
#include "backward.cuh"
#include "elementwise.cuh"

namespace daqakd::cuda {
namespace {

struct DeviceLSQPlus : LSQPlus<float> {
  __device__ Prepared prepare(int64_t) const { return {*step, *offset, bits}; }

  const float *step, *offset;  // []
  int64_t bits;
};

}  // namespace

Tensor lsqplus_forward(const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits) {
  check_lsqplus(x, step, offset, bits);
  const Launch launch(x);
  const Tensor input = dense(x);
  const Tensor steps = as_parameter(step, ScalarType::Float);
  const Tensor offsets = as_parameter(offset, ScalarType::Float);
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  const DeviceLSQPlus op{{}, data<float>(steps), data<float>(offsets), bits};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    map<T>(launch, view_of(input, std::nullopt), data<T>(input), mutable_data<T>(y), nullptr, op);
  });
  return y;
}

tuple<Tensor, Tensor, Tensor> lsqplus_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits,
    double grad_scale) {
  check_lsqplus_backward(grad, x, step, offset, bits, grad_scale);
  const Launch launch(x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, ScalarType::Float);
  const Tensor offsets = as_parameter(offset, ScalarType::Float);
  Tensor dx = empty_as(input), dstep = empty_contiguous(step, ScalarType::Float);
  Tensor doffset = empty_contiguous(offset, ScalarType::Float);
  if (x.numel() == 0) return {dx, torch::stable::zero_(dstep), torch::stable::zero_(doffset)};
  const DeviceLSQPlus op{{}, data<float>(steps), data<float>(offsets), bits};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<T>(input), mutable_data<T>(dx)};
    flat_backward(
        launch, input, to, {mutable_data<float>(dstep), mutable_data<float>(doffset)}, op,
        float(grad_scale));
  });
  return {dx, dstep, doffset};
}

}  // namespace daqakd::cuda
