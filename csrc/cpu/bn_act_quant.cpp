#include <cfloat>

#include "../common/bn_arguments.h"
#include "../ops.h"
#include "bn_backward.h"
#include "bn_forward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

// Parameters of the compute type, kept while their addresses are used.
template <class C>
class Parameters {
 public:
  const C* of(const optional<Tensor>& given, const Tensor& x) {
    if (!given) return nullptr;
    kept_.push_back(as_parameter(*given, accumulation_type(x)));
    return data<C>(kept_.back());
  }
  C one(const optional<Tensor>& given, const Tensor& x, double otherwise) {
    return given ? *of(given, x) : C(otherwise);
  }

 private:
  std::vector<Tensor> kept_;
};

// Calls body with the quantizer of values.
template <class C, class F>
void by_method(const QuantizerArguments& given, const Tensor& x, const F& body) {
  Parameters<C> parameters;
  const C first = parameters.one(given.parameter, x, 1), second = parameters.one(given.upper, x, 1);
  const PACTRange<C> range(given.bits, given.is_signed);
  switch (given.method) {
    case Method::lsq:
      return body(
          LSQOfValue<C>{Step<C>(first), lsq_range<C>(given.lowest(), given.highest(), given.ste)});
    case Method::pact:
      return body(PACTOfValue<C>(first, range));
    case Method::dorefa:
      return body(DoReFaOfValue<C>{DoReFaRange<C>(given.bits, given.is_signed)});
    case Method::ewgs:
      return body(
          EWGSOfValue<C>{
              EWGSRange<C>(first, second, given.bits),
              parameters.one(given.delta_tensor, x, given.delta)});
    default:
      return body(NoQuantizer<C>{});
  }
}

// Calls body with the way `x` is walked.
template <class F>
void by_layout(const Tensor& x, const F& body) {
  const View view = view_of(x, 1);
  view.channels > 1 && view.inner < kShortest ? body(Columns(view)) : body(Pieces(view));
}

optional<Tensor> beside(const optional<Tensor>& given, const Tensor& x) {
  if (!given) return std::nullopt;
  return in_strides_of(*given, x);
}

template <class T>
const T* address(const optional<Tensor>& given) {
  return given ? data<T>(*given) : nullptr;
}

// What the forward pass writes; no activation or codes where nobody asked for them.
struct Results {
  Tensor y, activation, statistics, codes;
  bool with_activation, with_codes;
};

template <class T>
CodePacker<T> packer_of(const QuantizerArguments& q, const Results& to) {
  return {
      grid_of<Compute<T>>(q.level(), int64_t(q.method), q.bits, q.is_signed), slot_bits(q.bits),
      data<T>(to.y), mutable_data<uint8_t>(to.codes)};
}

template <class T>
void forward_of(
    const BNArguments& given, const Tensor& x, const RunningStatistics& running,
    const Results& to) {
  using C = Compute<T>;
  Parameters<C> kept;
  const optional<Tensor> residual = beside(given.residual, x);
  const NormMaker<C> maker{
      kept.of(given.weight, x),
      kept.of(given.bias, x),
      running.mean ? mutable_data<C>(*running.mean) : nullptr,
      running.var ? mutable_data<C>(*running.var) : nullptr,
      double(kept.one(running.momentum_tensor, x, running.momentum)),
      running.eps,
      mutable_data<C>(to.statistics)};
  const ForwardTensors<T> all{
      data<T>(x), address<T>(residual), mutable_data<T>(to.y),
      to.with_activation ? mutable_data<T>(to.activation) : nullptr};
  std::optional<CodePacker<T>> packer;
  if (to.with_codes) packer = packer_of<T>(given.quantizer, to);
  by_method<C>(given.quantizer, x, [&](const auto& q) {
    by_layout(x, [&](const auto& plan) {
      forward<T>(
          plan, all, given.training, maker, ActivationRange<C>(given.activation), q,
          packer ? &*packer : nullptr);
    });
  });
}

}  // namespace

tuple<Tensor, Tensor, Tensor, Tensor> bn_act_quant_forward(
    const BNArguments& given, const RunningStatistics& running, bool with_activation,
    bool with_codes) {
  given.check();
  given.quantizer.check_codes(with_codes);
  running.check(given.x, given.training);
  const Tensor x = dense(given.x);
  const int64_t shape[2] = {2, x.size(1)}, none = 0;
  const Results to{
      empty_as(x),
      with_activation ? empty_as(x) : empty(x, &none, 1, x.scalar_type()),
      empty(x, shape, 2, accumulation_type(x)),
      with_codes ? empty_mask(x, slot_bits(given.quantizer.bits))
                 : empty(x, &none, 1, ScalarType::Byte),
      with_activation,
      with_codes};
  if (x.numel() == 0)
    torch::stable::zero_(const_cast<Tensor&>(to.statistics));
  else
    by_dtype(x, [&](auto element) { forward_of<decltype(element)>(given, x, running, to); });
  return {to.y, to.activation, to.statistics, to.codes};
}

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
