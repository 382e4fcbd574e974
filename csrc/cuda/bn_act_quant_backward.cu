#include "../ops.h"
#include "bn_backward.cuh"
#include "bn_quantizers.cuh"

namespace daqakd::cuda {
namespace {

// The gradients of one call.
template <class T>
struct NormBackward {
  const Launch& launch;
  const Tensor& x;
  NormGradients<T> all;
  GradientMaker maker;
  ActivationRange<float> range;
  QuantizerSums sums;

  template <class Q>
  void operator()(const Q& q) {
    const View view = view_of(x, 1);
    all.aligned =
        aligned({all.grad, all.grad_activation, all.x, all.residual, all.dx, all.dresidual});
    if (has_columns(view)) {
      by_columns(q, Columns<kVector<T>>(view));
    } else {
      const bool whole = has_whole_packs<T>(view.outer * view.channels, view.inner);
      by_runs(
          q, whole ? bn_backward_runs<T, kVector<T>, Q> : bn_backward_runs<T, 1, Q>, Runs(view));
    }
    const int64_t numel = view.numel(), stride = kThreads * kVector<T>;
    launch(
        bn_backward_kernel<T, Q>, ceil_div(numel, kNormBatch * stride), kThreads, all, numel,
        ChannelTable(maker.table, view, stride), range, q);
  }

  template <class Q>
  void by_runs(const Q& q, const auto& kernel, const Runs& plan) {
    const int64_t plane = plan.blocks();
    const Tensor memory = scratch(x, (2 + Q::kSums) * plane);
    float* partials = mutable_data<float>(memory);
    launch(kernel, plan.blocks(), kThreads, all, maker.norms, range, q, plan, partials);
    finish<Q>(partials, plan, plane, partials + 2 * plane);
  }

  template <class Q>
  void by_columns(const Q& q, const Columns<kVector<T>>& plan) {
    const int64_t plane = plan.down() * plan.width;
    const Tensor memory = scratch(x, 2 * plane + Q::kSums * plan.blocks());
    float *partials = mutable_data<float>(memory), *others = partials + 2 * plane;
    launch(
        bn_backward_columns<T, Q>, plan.blocks(), kThreads, all, maker.norms, range, q, plan,
        partials, others);
    finish<Q>(partials, plan, plane, others);
  }

  template <class Q>
  void finish(const float* partials, const auto& plan, int64_t plane, const float* others) {
    sums.partials = others;
    sums.blocks = plan.blocks();
    launch(
        bn_gradient_kernel, maker.channels + Q::kSums, kReduceThreads, partials, plan.reduction(),
        plane, maker, sums);
  }
};

}  // namespace

tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_act_quant_backward(
    const optional<Tensor>& grad, const optional<Tensor>& grad_activation, const Tensor& statistics,
    const BNArguments& given, bool with_residual) {
  check_bn_backward(grad, grad_activation, statistics, given);
  const Launch launch(given.x);
  const Tensor x = dense(given.x);
  const int64_t channels = x.size(1), shape[2] = {2, channels}, none = 0;
  const auto& quantizer = given.quantizer;
  const auto parameter = [&](const optional<Tensor>& like) {
    return like ? empty_contiguous(*like, ScalarType::Float)
                : empty(x, &none, 1, ScalarType::Float);
  };
  Tensor dx = empty_as(x), dnorm = empty(x, shape, 2, ScalarType::Float);
  Tensor dresidual = with_residual ? empty_as(x) : empty(x, &none, 1, x.scalar_type());
  Tensor dparameter = parameter(quantizer.parameter), dupper = parameter(quantizer.upper);
  if (x.numel() == 0)
    return {
        dx, dresidual, torch::stable::zero_(dnorm), torch::stable::zero_(dparameter),
        torch::stable::zero_(dupper)};
  const optional<Tensor> weight = as_floats(given.weight), bias = as_floats(given.bias);
  const optional<Tensor> residual = beside(given.residual, x), g = beside(grad, x);
  const optional<Tensor> ga = beside(grad_activation, x);
  const Tensor table = scratch(x, 5 * channels);
  const QuantizerParameters parameters(quantizer);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    NormBackward<T> run{
        launch,
        x,
        {address<T>(g), address<T>(ga), data<T>(x), address<T>(residual), mutable_data<T>(dx),
         with_residual ? mutable_data<T>(dresidual) : nullptr, false},
        {{data<float>(statistics), address<float>(weight), address<float>(bias), channels},
         given.training,
         double(x.numel()) / double(channels),
         channels,
         mutable_data<float>(dnorm),
         mutable_data<float>(table)},
        ActivationRange<float>(given.activation),
        {nullptr,
         0,
         {mutable_data<float>(dparameter), mutable_data<float>(dupper)},
         quantizer.method == Method::lsq ? quantizer.grad_scale : 1.0}};
    parameters.by_method([&](const auto& q) { run(q); });
  });
  return {dx, dresidual, dnorm, dparameter, dupper};
}

}  // namespace daqakd::cuda
