#include "../formulas/lsq.h"

#include "../ops.h"
#include "many.cuh"

namespace daqakd::cuda {
namespace {

using Op = PerChannel<LSQ<float>>;

// Rows of the dense `x` in the launch: one per step. None where they lie otherwise in memory, for
// then the op on one tensor cuts them in a way of its own and has to do it.
int64_t rows_of(const Tensor& x, const Tensor& step) {
  return is_rows(x, step.numel()) ? step.numel() : 0;
}

}  // namespace

Tensors lsq_many_forward(Tensors x, Tensors step, Integers qmin, Integers qmax) {
  check_lsq_many(x, step, qmin, qmax);
  const Launch launch(x[0]);
  Tensors y;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = dense(x[i]);
    step[i] = as_parameter(step[i], ScalarType::Float);
    const bool alone = rows_of(x[i], step[i]) == 0;
    y.push_back(alone ? lsq_forward(x[i], step[i], qmin[i], qmax[i], 0) : empty_as(x[i]));
  }
  by_dtype(x[0], [&](auto element) {
    using T = decltype(element);
    map_many<T, Op>(launch, x, y, [&](size_t i) {
      return TensorOp<Op>{
          {{data<float>(step[i])}, {lsq_range<float>(qmin[i], qmax[i], STE::closed)}},
          rows_of(x[i], step[i])};
    });
  });
  return y;
}

tuple<Tensors, Tensors> lsq_many_backward(
    Tensors grad, Tensors x, Tensors step, Integers qmin, Integers qmax, int64_t ste,
    std::vector<double> grad_scale) {
  check_lsq_many_backward(grad, x, step, qmin, qmax, ste, grad_scale);
  const Launch launch(x[0]);
  Tensors dx, ds;
  for (size_t i = 0; i < x.size(); ++i) {
    x[i] = dense(x[i]);
    grad[i] = in_strides_of(grad[i], x[i]);
    step[i] = as_parameter(step[i], ScalarType::Float);
    dx.push_back(empty_as(x[i]));
    ds.push_back(empty_contiguous(step[i], ScalarType::Float));
    if (rows_of(x[i], step[i]) == 0)
      std::tie(dx[i], ds[i]) =
          lsq_backward(grad[i], x[i], step[i], qmin[i], qmax[i], 0, ste, grad_scale[i]);
  }
  by_dtype(x[0], [&](auto element) {
    using T = decltype(element);
    const auto op = [&](size_t i) {
      return TensorOp<Op>{
          {{data<float>(step[i])}, {lsq_range<float>(qmin[i], qmax[i], STE(ste))}},
          rows_of(x[i], step[i])};
    };
    backward_many<T, Op>(launch, grad, x, dx, op, {{&ds}, {grad_scale.begin(), grad_scale.end()}});
  });
  return {dx, ds};
}

}  // namespace daqakd::cuda
