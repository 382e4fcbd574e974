#include "../formulas/ewgs.h"

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"
#include "many.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct HostEWGS : EWGS<C> {
  using Prepared = typename EWGS<C>::Prepared;
  DAQAKD_INLINE Prepared prepare(C) const { return prepared; }

  Prepared prepared;
};

template <class C>
HostEWGS<C> op_of(const Tensor& lower, const Tensor& upper, int64_t bits, C delta) {
  return {{}, {EWGSRange<C>(*data<C>(lower), *data<C>(upper), bits), delta}};
}

void forward_one(
    const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits, const Tensor& y) {
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    map<T>(
        view_of(x, std::nullopt), data<T>(x), &unused, mutable_data<T>(y), nullptr,
        op_of<C>(lower, upper, bits, 0));
  });
}

// delta_tensor: null where delta holds.
void backward_one(
    const Tensor& grad, const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits,
    double delta, const Tensor* delta_tensor, const Tensor& dx, const Tensor& dlower,
    const Tensor& dupper) {
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0, scale = delta_tensor ? *data<C>(*delta_tensor) : C(delta);
    backward<T>(
        view_of(x, std::nullopt), data<T>(grad), Values<T>{data<T>(x)}, &unused,
        mutable_data<T>(dx), {mutable_data<C>(dlower), mutable_data<C>(dupper)}, 1.0,
        op_of<C>(lower, upper, bits, scale));
  });
}

optional<Tensor> scale_of(const optional<Tensor>& delta_tensor, const Tensor& x) {
  if (!delta_tensor) return std::nullopt;
  return as_parameter(*delta_tensor, accumulation_type(x));
}

}  // namespace

Tensor ewgs_forward(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits) {
  check_ewgs(x, lower, upper, bits);
  const Tensor input = dense(x);
  const ScalarType type = accumulation_type(x);
  Tensor y = empty_as(input);
  forward_one(input, as_parameter(lower, type), as_parameter(upper, type), bits, y);
  return y;
}

tuple<Tensor, Tensor, Tensor> ewgs_backward(
    const Tensor& grad, const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits,
    double delta, optional<Tensor> delta_tensor) {
  auto [dx, dlower, dupper] =
      ewgs_many_backward({grad}, {x}, {lower}, {upper}, {bits}, delta, delta_tensor);
  return {dx[0], dlower[0], dupper[0]};
}

Tensors ewgs_many_forward(Tensors x, Tensors lower, Tensors upper, Integers bits) {
  check_ewgs_many(x, lower, upper, bits);
  Tensors y;
  for (size_t i = 0; i < x.size(); ++i) {
    const ScalarType type = accumulation_type(x[i]);
    lower[i] = as_parameter(lower[i], type);
    upper[i] = as_parameter(upper[i], type);
    x[i] = dense(x[i]);
    y.push_back(empty_as(x[i]));
  }
  each_tensor(x, [&](int64_t i) { forward_one(x[i], lower[i], upper[i], bits[i], y[i]); });
  return y;
}

tuple<Tensors, Tensors, Tensors> ewgs_many_backward(
    Tensors grad, Tensors x, Tensors lower, Tensors upper, Integers bits, double delta,
    optional<Tensor> delta_tensor) {
  check_ewgs_many_backward(grad, x, lower, upper, bits, delta, delta_tensor);
  const optional<Tensor> scale = scale_of(delta_tensor, x[0]);
  Tensors dx, dlower, dupper;
  for (size_t i = 0; i < x.size(); ++i) {
    const ScalarType type = accumulation_type(x[i]);
    dlower.push_back(empty_contiguous(lower[i], type));
    dupper.push_back(empty_contiguous(upper[i], type));
    lower[i] = as_parameter(lower[i], type);
    upper[i] = as_parameter(upper[i], type);
    x[i] = dense(x[i]);
    grad[i] = in_strides_of(grad[i], x[i]);
    dx.push_back(empty_as(x[i]));
  }
  each_tensor(x, [&](int64_t i) {
    backward_one(
        grad[i], x[i], lower[i], upper[i], bits[i], delta, scale ? &*scale : nullptr, dx[i],
        dlower[i], dupper[i]);
  });
  return {dx, dlower, dupper};
}

}  // namespace daqakd::cpu
