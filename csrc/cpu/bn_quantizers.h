#pragma once

#include <cfloat>

#include "../common/bn_arguments.h"
#include "channels.h"
#include "dispatch.h"

// What both passes of bn_act_quant make of their arguments.
namespace daqakd::cpu {

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

inline optional<Tensor> beside(const optional<Tensor>& given, const Tensor& x) {
  if (!given) return std::nullopt;
  return in_strides_of(*given, x);
}

template <class T>
const T* address(const optional<Tensor>& given) {
  return given ? data<T>(*given) : nullptr;
}

}  // namespace daqakd::cpu
