#include "../formulas/ewgs.h"

#include "../common/check.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct EWGS {
  static constexpr int kBits = 0, kSums = 2;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE EWGSRange<C> prepare(C) const { return range; }
  DAQAKD_INLINE C value(C x, const EWGSRange<C>& all) const { return ewgs_quantize(x, all); }
  DAQAKD_INLINE Shares<C, 2> gradient(C g, C x, const EWGSRange<C>& all) const {
    const EWGSGradient<C> one = ewgs_gradient(g, x, all, delta);
    return {one.dx, {one.dlower, one.dupper}};
  }

  EWGSRange<C> range;
  C delta;
};

template <class C>
EWGS<C> op_of(const Tensor& lower, const Tensor& upper, int64_t bits, C delta) {
  constexpr ScalarType type = sizeof(C) == 8 ? ScalarType::Double : ScalarType::Float;
  const C low = *data<C>(as_parameter(lower, type)), high = *data<C>(as_parameter(upper, type));
  return {EWGSRange<C>(low, high, bits), delta};
}

void check_range(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits) {
  check_parameter("lower", lower, x, std::nullopt);
  check_parameter("upper", upper, x, std::nullopt);
  check_bits(bits, false);
}

}  // namespace

Tensor ewgs_forward(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits) {
  check_range(x, lower, upper, bits);
  const Tensor input = dense(x);
  Tensor y = empty_as(input);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    map<T>(
        view_of(input, std::nullopt), data<T>(input), &unused, mutable_data<T>(y), nullptr,
        op_of<C>(lower, upper, bits, 0));
  });
  return y;
}

std::tuple<Tensor, Tensor, Tensor> ewgs_backward(
    const Tensor& grad, const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits,
    double delta, std::optional<Tensor> delta_tensor) {
  check_range(x, lower, upper, bits);
  check_same("grad", grad, x);
  if (delta_tensor) check_parameter("delta_tensor", *delta_tensor, x, std::nullopt);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  Tensor dx = empty_as(input), dlower = empty_contiguous(lower, accumulation_type(x));
  Tensor dupper = empty_contiguous(upper, accumulation_type(x));
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    const C scale =
        delta_tensor ? *data<C>(as_parameter(*delta_tensor, accumulation_type(x))) : C(delta);
    backward<T>(
        view_of(input, std::nullopt), data<T>(g), Values<T>{data<T>(input)}, &unused,
        mutable_data<T>(dx), {mutable_data<C>(dlower), mutable_data<C>(dupper)}, 1.0,
        op_of<C>(lower, upper, bits, scale));
  });
  return {dx, dlower, dupper};
}

}  // namespace daqakd::cpu
