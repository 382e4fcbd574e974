#include "../formulas/dorefa.h"

#include "../common/check.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct None {};

template <class C>
struct Activation {
  static constexpr int kBits = 1;

  DAQAKD_INLINE None<C> prepare(C) const { return {}; }
  DAQAKD_INLINE C value(C x, None<C>) const { return dorefa_quantize(x, range); }
  DAQAKD_INLINE uint8_t code(C x, None<C>) const { return dorefa_code(x, range); }

  DoReFaRange<C> range;
};

template <class C>
struct ActivationBackward {
  static constexpr int kSums = 0;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE None<C> prepare(C) const { return {}; }
  template <class Code>
  DAQAKD_INLINE Shares<C, 0> gradient(C g, Code code, None<C>) const {
    return {code != 0 ? g : C(0), {}};
  }
};

}  // namespace

tuple<Tensor, Tensor> dorefa_activation_forward(
    const Tensor& x, int64_t bits, bool is_signed) {
  check_bits(bits, is_signed);
  const Tensor input = dense(x);
  Tensor y = empty_as(input), mask = empty_mask(x, 1);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    map<T>(
        view_of(input, std::nullopt), data<T>(input), &unused, mutable_data<T>(y),
        mutable_data<uint8_t>(mask), Activation<C>{DoReFaRange<C>(bits, is_signed)});
  });
  return {y, mask};
}

Tensor dorefa_activation_backward(const Tensor& grad, const Tensor& mask) {
  check_mask(mask, grad, 1);
  const Tensor g = dense(grad);
  Tensor dx = empty_as(g);
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    backward<T>(
        view_of(g, std::nullopt), data<T>(g), Codes<1, C>{data<uint8_t>(mask), 0}, &unused,
        mutable_data<T>(dx), {}, 1.0, ActivationBackward<C>{});
  });
  return dx;
}

}  // namespace daqakd::cpu
