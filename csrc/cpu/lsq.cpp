#include "../formulas/lsq.h"

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"
#include "many.h"

namespace daqakd::cpu {
namespace {

void forward_one(
    const Tensor& x, const Tensor& steps, int64_t qmin, int64_t qmax, optional<int64_t> axis,
    const Tensor& y) {
  if (x.numel() == 0) return;
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    map<T>(
        view_of(x, axis), data<T>(x), data<C>(steps), mutable_data<T>(y), nullptr,
        LSQ<C>{lsq_range<C>(qmin, qmax, STE::closed)});
  });
}

void backward_one(
    const Tensor& grad, const Tensor& x, const Tensor& steps, int64_t qmin, int64_t qmax,
    optional<int64_t> axis, STE ste, double grad_scale, const Tensor& dx, const Tensor& ds) {
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    if (x.numel() == 0) return void(std::fill_n(mutable_data<C>(ds), ds.numel(), C(0)));
    backward<T>(
        view_of(x, axis), data<T>(grad), Values<T>{data<T>(x)}, data<C>(steps), mutable_data<T>(dx),
        {mutable_data<C>(ds)}, grad_scale, LSQ<C>{lsq_range<C>(qmin, qmax, ste)});
  });
}

}  // namespace

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, optional<int64_t> axis) {
  check_lsq(x, step, qmin, qmax, axis);
  const Tensor input = dense(x), steps = as_parameter(step, accumulation_type(x));
  Tensor y = empty_as(input);
  forward_one(input, steps, qmin, qmax, axis, y);
  return y;
}

tuple<Tensor, Tensor> lsq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax,
    optional<int64_t> axis, int64_t ste, double grad_scale) {
  check_lsq_backward(grad, x, step, qmin, qmax, axis, ste, grad_scale);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, accumulation_type(x));
  Tensor dx = empty_as(input), ds = empty_contiguous(step, accumulation_type(x));
  backward_one(g, input, steps, qmin, qmax, axis, STE(ste), grad_scale, dx, ds);
  return {dx, ds};
}

Tensors lsq_many_forward(Tensors x, Tensors step, Integers qmin, Integers qmax) {
  check_lsq_many(x, step, qmin, qmax);
  Tensors y;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = dense(x[i]);
    step[i] = as_parameter(step[i], accumulation_type(x[i]));
    y.push_back(empty_as(x[i]));
  }
  each_tensor(
      x, [&](int64_t i) { forward_one(x[i], step[i], qmin[i], qmax[i], row_axis(step[i]), y[i]); });
  return y;
}

tuple<Tensors, Tensors> lsq_many_backward(
    Tensors grad, Tensors x, Tensors step, Integers qmin, Integers qmax, int64_t ste,
    std::vector<double> grad_scale) {
  check_lsq_many_backward(grad, x, step, qmin, qmax, ste, grad_scale);
  Tensors dx, ds;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = dense(x[i]);
    grad[i] = in_strides_of(grad[i], x[i]);
    ds.push_back(empty_contiguous(step[i], accumulation_type(x[i])));
    step[i] = as_parameter(step[i], accumulation_type(x[i]));
    dx.push_back(empty_as(x[i]));
  }
  each_tensor(x, [&](int64_t i) {
    backward_one(
        grad[i], x[i], step[i], qmin[i], qmax[i], row_axis(step[i]), STE(ste), grad_scale[i], dx[i],
        ds[i]);
  });
  return {dx, ds};
}

}  // namespace daqakd::cpu
