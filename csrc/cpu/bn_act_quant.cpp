#include "../ops.h"
#include "bn_forward.h"
#include "bn_quantizers.h"

namespace daqakd::cpu {
namespace {

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

}  // namespace daqakd::cpu
