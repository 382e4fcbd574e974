#include "../formulas/lsq.h"

#include "../common/check.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct LSQ {
  static constexpr int kBits = 0, kSums = 1;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE Step<C> prepare(C step) const { return Step<C>(step); }
  DAQAKD_INLINE C value(C x, const Step<C>& s) const { return lsq_quantize(x, s, range); }
  DAQAKD_INLINE Shares<C, 1> gradient(C g, C x, const Step<C>& s) const {
    const LSQGradient<C> one = lsq_gradient(g, x, s, range);
    return {one.dx, {one.ds}};
  }

  LSQRange<C> range;
};

}  // namespace

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, std::optional<int64_t> axis) {
  check_parameter("step", step, x, axis);
  const Tensor input = dense(x), steps = as_parameter(step, accumulation_type(x));
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    map<T>(
        view_of(input, axis), data<T>(input), data<C>(steps), mutable_data<T>(y), nullptr,
        LSQ<C>{lsq_range<C>(qmin, qmax, STE::closed)});
  });
  return y;
}

std::tuple<Tensor, Tensor> lsq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax,
    std::optional<int64_t> axis, int64_t ste, double grad_scale) {
  check_parameter("step", step, x, axis);
  check_same("grad", grad, x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, accumulation_type(x));
  Tensor dx = empty_as(input), ds = empty_contiguous(step, accumulation_type(x));
  if (x.numel() == 0) return {dx, torch::stable::zero_(ds)};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    backward<T>(
        view_of(input, axis), data<T>(g), Values<T>{data<T>(input)}, data<C>(steps),
        mutable_data<T>(dx), {mutable_data<C>(ds)}, grad_scale,
        LSQ<C>{lsq_range<C>(qmin, qmax, STE(ste))});
  });
  return {dx, ds};
}

}  // namespace daqakd::cpu
