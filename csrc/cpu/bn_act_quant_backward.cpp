#include "../ops.h"
#include "bn_backward.h"
#include "bn_quantizers.h"

namespace daqakd::cpu {

tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_act_quant_backward(
    const optional<Tensor>& grad, const optional<Tensor>& grad_activation, const Tensor& statistics,
    const BNArguments& given, bool with_residual) {
  check_bn_backward(grad, grad_activation, statistics, given);
  const Tensor x = dense(given.x);
  const ScalarType type = accumulation_type(x);
  const int64_t channels = x.size(1), shape[2] = {2, channels}, none = 0;
  const auto parameter = [&](const optional<Tensor>& like) {
    return like ? empty_contiguous(*like, type) : empty(x, &none, 1, type);
  };
  const auto& q = given.quantizer;
  Tensor dx = empty_as(x), dnorm = empty(x, shape, 2, type);
  Tensor dresidual = with_residual ? empty_as(x) : empty(x, &none, 1, x.scalar_type());
  Tensor sums[kMostSums] = {parameter(q.parameter), parameter(q.upper)};
  if (x.numel() == 0) {
    for (const Tensor& sum : sums) torch::stable::zero_(const_cast<Tensor&>(sum));
    return {dx, dresidual, torch::stable::zero_(dnorm), sums[0], sums[1]};
  }
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    Parameters<C> kept;
    const optional<Tensor> g = beside(grad, x), ga = beside(grad_activation, x);
    const optional<Tensor> residual = beside(given.residual, x);
    const C *weight = kept.of(given.weight, x), *bias = kept.of(given.bias, x);
    const C* from = data<C>(statistics);
    const Norms<C> norms(channels);
    for (int64_t i = 0; i < channels; ++i)
      norms.set(i, {from[i], from[channels + i], weight ? weight[i] : C(1), bias ? bias[i] : C(0)});
    const BackwardTensors<T> all{
        address<T>(g),       address<T>(ga),
        data<T>(x),          address<T>(residual),
        mutable_data<T>(dx), with_residual ? mutable_data<T>(dresidual) : nullptr};
    C* to = mutable_data<C>(dnorm);
    const GradientMaker<C> maker{
        from, given.training, double(x.numel()) / double(channels), to, to + channels};
    double quantizer[kMostSums] = {};
    by_method<C>(q, x, [&](const auto& op) {
      by_layout(x, [&](const auto& plan) {
        backward_of_norm<T>(
            plan, all, norms, maker, ActivationRange<C>(given.activation), op, quantizer);
      });
    });
    if (q.parameter)
      *mutable_data<C>(sums[0]) = C(quantizer[0] * (q.method == Method::lsq ? q.grad_scale : 1));
    if (q.upper) *mutable_data<C>(sums[1]) = C(quantizer[1]);
  });
  return {dx, dresidual, dnorm, sums[0], sums[1]};
}

}  // namespace daqakd::cpu
