#pragma once

#include "common/kd_arguments.h"
#include "ops.h"

// kd_loss as the schema lists its arguments, gathered into the struct that the devices take.
namespace daqakd {

inline tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kd_loss_forward(
    const Tensor& student, const Tensor& teacher, optional<Tensor> labels, double temperature,
    double ce_weight, double kd_weight, optional<Tensor> temperature_tensor,
    optional<Tensor> ce_weight_tensor, optional<Tensor> kd_weight_tensor, double label_smoothing,
    int64_t ignore_index, int64_t reduction, bool with_grad) {
  return DAQAKD_DEVICE::kd_loss_forward(
      {student, teacher, labels, temperature, ce_weight, kd_weight, temperature_tensor,
       ce_weight_tensor, kd_weight_tensor, label_smoothing, ignore_index, KDReduction(reduction)},
      with_grad);
}

inline Tensor kd_loss_backward(
    const Tensor& grad, const Tensor& student, const Tensor& teacher, optional<Tensor> labels,
    double temperature, double ce_weight, double kd_weight, optional<Tensor> temperature_tensor,
    optional<Tensor> ce_weight_tensor, optional<Tensor> kd_weight_tensor, double label_smoothing,
    int64_t ignore_index, int64_t reduction) {
  return DAQAKD_DEVICE::kd_loss_backward(
      grad,
      {student, teacher, labels, temperature, ce_weight, kd_weight, temperature_tensor,
       ce_weight_tensor, kd_weight_tensor, label_smoothing, ignore_index, KDReduction(reduction)});
}

}  // namespace daqakd
