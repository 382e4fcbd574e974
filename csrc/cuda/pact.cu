#include "../formulas/pact.h"

#include "../ops.h"
#include "backward.cuh"

namespace daqakd::cuda {
namespace {

struct PACTBackward {
  static constexpr int kBits = 2, kSums = 1;
  static constexpr bool kHasDx = true;
  struct Prepared {};

  __device__ Prepared prepare(int64_t) const { return {}; }
  __device__ __forceinline__ Contribution<float, 1> gradient(
      float g, unsigned code, Prepared) const {
    const PACTGradient<float> one = pact_gradient(g, code, subtracted);
    return {one.dx, {one.dalpha}};
  }

  unsigned subtracted;
};

}  // namespace

tuple<Tensor, Tensor> pact_forward(
    const Tensor& x, const Tensor& alpha, int64_t bits, bool is_signed, optional<int64_t> axis) {
  check_pact(x, alpha, bits, is_signed, axis);
  const Launch launch(x);
  const Tensor input = dense(x), levels = as_parameter(alpha, ScalarType::Float);
  Tensor y = empty_as(input), mask = empty_mask(x, 2);
  if (x.numel() == 0) return {y, mask};
  const PerChannel<PACT<float>> op{{data<float>(levels)}, {PACTRange<float>(bits, is_signed)}};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    map<T>(
        launch, view_of(input, axis), data<T>(input), mutable_data<T>(y),
        mutable_data<uint8_t>(mask), op);
  });
  return {y, mask};
}

tuple<Tensor, Tensor> pact_backward(
    const Tensor& grad, const Tensor& mask, const Tensor& alpha, bool is_signed,
    optional<int64_t> axis) {
  check_pact_backward(grad, mask, alpha, axis);
  const Launch launch(grad);
  const Tensor g = dense(grad);
  Tensor dx = empty_as(g), dalpha = empty_contiguous(alpha, ScalarType::Float);
  if (grad.numel() == 0) return {dx, torch::stable::zero_(dalpha)};
  const View view = view_of(g, axis);
  const PACTBackward op{is_signed ? kBelow : kNoCode};
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    const Gradients<T> to{data<T>(g), data<uint8_t>(mask), mutable_data<T>(dx)};
    ChannelBackward{launch, view, dalpha, 1.0f, to, op}();
  });
  return {dx, dalpha};
}

}  // namespace daqakd::cuda
