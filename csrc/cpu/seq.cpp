#include "../formulas/seq.h"

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {

Tensor seq_forward(const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis) {
  check_seq(x, step, levels, axis);
  const Tensor input = dense(x), steps = as_parameter(step, accumulation_type(x));
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    map<T>(
        view_of(input, axis), data<T>(input), data<C>(steps), mutable_data<T>(y), nullptr,
        SEQ<C>{seq_range<C>(levels)});
  });
  return y;
}

tuple<Tensor, Tensor> seq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis,
    double grad_scale) {
  check_seq_backward(grad, x, step, levels, axis, grad_scale);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, accumulation_type(x));
  Tensor dx = empty_as(input), ds = empty_contiguous(step, accumulation_type(x));
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    if (x.numel() == 0) return void(std::fill_n(mutable_data<C>(ds), ds.numel(), C(0)));
    backward<T>(
        view_of(input, axis), data<T>(g), Values<T>{data<T>(input)}, data<C>(steps),
        mutable_data<T>(dx), {mutable_data<C>(ds)}, grad_scale, SEQ<C>{seq_range<C>(levels)});
  });
  return {dx, ds};
}

}  // namespace daqakd::cpu
