#include "../formulas/lsqplus.h"

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct HostLSQPlus : LSQPlus<C> {
  DAQAKD_INLINE LSQPlusGrid<C> prepare(C) const { return grid; }

  LSQPlusGrid<C> grid;
};

template <class C>
HostLSQPlus<C> op_of(const Tensor& step, const Tensor& offset, int64_t bits) {
  return {{}, {*data<C>(step), *data<C>(offset), bits}};
}

}  // namespace

Tensor lsqplus_forward(const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits) {
  check_lsqplus(x, step, offset, bits);
  const Tensor input = dense(x);
  const ScalarType type = accumulation_type(x);
  const Tensor steps = as_parameter(step, type), offsets = as_parameter(offset, type);
  Tensor y = empty_as(input);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    map<T>(
        view_of(input, std::nullopt), data<T>(input), &unused, mutable_data<T>(y), nullptr,
        op_of<C>(steps, offsets, bits));
  });
  return y;
}

tuple<Tensor, Tensor, Tensor> lsqplus_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits,
    double grad_scale) {
  check_lsqplus_backward(grad, x, step, offset, bits, grad_scale);
  const ScalarType type = accumulation_type(x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, type), offsets = as_parameter(offset, type);
  Tensor dx = empty_as(input), dstep = empty_contiguous(step, type);
  Tensor doffset = empty_contiguous(offset, type);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    backward<T>(
        view_of(input, std::nullopt), data<T>(g), Values<T>{data<T>(input)}, &unused,
        mutable_data<T>(dx), {mutable_data<C>(dstep), mutable_data<C>(doffset)}, grad_scale,
        op_of<C>(steps, offsets, bits));
  });
  return {dx, dstep, doffset};
}

}  // namespace daqakd::cpu
