#include "../formulas/pact.h"

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct PACTBackward {
  static constexpr int kSums = 1;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE C prepare(C alpha) const { return alpha; }
  template <class Code>
  DAQAKD_INLINE Contribution<C, 1> gradient(C g, Code code, C) const {
    const PACTGradient<C> one = pact_gradient(g, code, Code(subtracted));
    return {one.dx, {one.dalpha}};
  }

  PACTCode subtracted;
};

}  // namespace

tuple<Tensor, Tensor> pact_forward(
    const Tensor& x, const Tensor& alpha, int64_t bits, bool is_signed, optional<int64_t> axis) {
  check_pact(x, alpha, bits, is_signed, axis);
  const Tensor input = dense(x), levels = as_parameter(alpha, accumulation_type(x));
  Tensor y = empty_as(input), mask = empty_mask(x, 2);
  if (x.numel() == 0) return {y, mask};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    map<T>(
        view_of(input, axis), data<T>(input), data<C>(levels), mutable_data<T>(y),
        mutable_data<uint8_t>(mask), PACT<C>{PACTRange<C>(bits, is_signed)});
  });
  return {y, mask};
}

tuple<Tensor, Tensor> pact_backward(
    const Tensor& grad, const Tensor& mask, const Tensor& alpha, bool is_signed,
    optional<int64_t> axis) {
  check_pact_backward(grad, mask, alpha, axis);
  const Tensor g = dense(grad), levels = as_parameter(alpha, accumulation_type(grad));
  Tensor dx = empty_as(g), dalpha = empty_contiguous(alpha, accumulation_type(grad));
  if (grad.numel() == 0) return {dx, torch::stable::zero_(dalpha)};
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    backward<T>(
        view_of(g, axis), data<T>(g), Codes<2, C>{data<uint8_t>(mask), 0}, data<C>(levels),
        mutable_data<T>(dx), {mutable_data<C>(dalpha)}, 1.0,
        PACTBackward<C>{is_signed ? kBelow : kNoCode});
  });
  return {dx, dalpha};
}

}  // namespace daqakd::cpu
