#include "../formulas/lsq.h"

#include "../ops.h"
#include "many.cuh"

namespace daqakd::cuda {

using Op = PerChannel<LSQ<float>>;
Tensors lsq_many_forward(Tensors x, Tensors step, Integers qmin, Integers qmax) {
  check_lsq_many(x, step, qmin, qmax);
  const Launch launch(x[0]);
  Tensors models, y;
  for (size_t i = 0; i < x.size(); ++i) {
    models.push_back(dense(x[i]));
    x[i] = in_rows(models[i], step[i].numel());
    step[i] = as_parameter(step[i], ScalarType::Float);
    y.push_back(empty_as(x[i]));
  }
  by_dtype(x[0], [&](auto element) {
    using T = decltype(element);
    map_many<T, Op>(launch, x, y, [&](size_t i) {
      return TensorOp<Op>{
          {{data<float>(step[i])}, {lsq_range<float>(qmin[i], qmax[i], STE::closed)}},
          step[i].numel()};
    });
  });
  return in_strides_of_each(y, models);
}

tuple<Tensors, Tensors> lsq_many_backward(
    Tensors grad, Tensors x, Tensors step, Integers qmin, Integers qmax, int64_t ste,
    std::vector<double> grad_scale) {
  check_lsq_many_backward(grad, x, step, qmin, qmax, ste, grad_scale);
  const Launch launch(x[0]);
  Tensors models, dx, ds;
  for (size_t i = 0; i < x.size(); ++i) {
    models.push_back(dense(x[i]));
    x[i] = in_rows(models[i], step[i].numel());
    grad[i] = in_strides_of(grad[i], x[i]);
    ds.push_back(empty_contiguous(step[i], ScalarType::Float));
    step[i] = as_parameter(step[i], ScalarType::Float);
    dx.push_back(empty_as(x[i]));
  }
  by_dtype(x[0], [&](auto element) {
    using T = decltype(element);
    const auto op = [&](size_t i) {
      return TensorOp<Op>{
          {{data<float>(step[i])}, {lsq_range<float>(qmin[i], qmax[i], STE(ste))}},
          step[i].numel()};
    };
    const Partials partials = backward_many<T, Op>(launch, grad, x, dx, op);
    reduce_many(launch, partials, {&ds}, [&](size_t i) { return float(grad_scale[i]); });
  });
  return {in_strides_of_each(dx, models), ds};
}

}  // namespace daqakd::cuda
