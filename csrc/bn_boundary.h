#pragma once

#include "common/bn_arguments.h"
#include "ops.h"

// bn_act_quant as the schema lists its arguments, gathered into the structs that the devices take.
namespace daqakd {

inline tuple<Tensor, Tensor, Tensor, Tensor> bn_act_quant_forward(
    const Tensor& x, optional<Tensor> residual, optional<Tensor> weight, optional<Tensor> bias,
    optional<Tensor> running_mean, optional<Tensor> running_var, bool training, double momentum,
    optional<Tensor> momentum_tensor, double eps, int64_t activation, int64_t method,
    optional<Tensor> parameter, optional<Tensor> upper, int64_t bits, bool is_signed,
    bool with_activation, bool with_codes) {
  const QuantizerArguments quantizer{Method(method), parameter, upper, bits, is_signed};
  return DAQAKD_DEVICE::bn_act_quant_forward(
      {x, residual, weight, bias, training, Activation(activation), quantizer},
      {running_mean, running_var, momentum, momentum_tensor, eps}, with_activation, with_codes);
}

inline tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_act_quant_backward(
    optional<Tensor> grad, optional<Tensor> grad_activation, const Tensor& x,
    optional<Tensor> residual, const Tensor& statistics, optional<Tensor> weight,
    optional<Tensor> bias, bool training, int64_t activation, int64_t method,
    optional<Tensor> parameter, optional<Tensor> upper, int64_t bits, bool is_signed, int64_t ste,
    double grad_scale, double delta, optional<Tensor> delta_tensor, bool with_residual) {
  const QuantizerArguments quantizer{Method(method), parameter,  upper, bits,        is_signed,
                                     STE(ste),       grad_scale, delta, delta_tensor};
  return DAQAKD_DEVICE::bn_act_quant_backward(
      grad, grad_activation, statistics,
      {x, residual, weight, bias, training, Activation(activation), quantizer}, with_residual);
}

}  // namespace daqakd
