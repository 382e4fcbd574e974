#pragma once

#include "common/types.h"

// The build names the device of each library; these serve an editor that does not know it.
#if !defined(DAQAKD_DEVICE)
#define DAQAKD_DEVICE cpu
#define DAQAKD_KEY CPU
#endif

namespace daqakd {
struct KDArguments;
struct BNArguments;
struct RunningStatistics;
}  // namespace daqakd

// What a device implements; schemas, shapes and defaults are in daqakd/_ops.py.
namespace daqakd::DAQAKD_DEVICE {

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, optional<int64_t> axis);
tuple<Tensor, Tensor> lsq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax,
    optional<int64_t> axis, int64_t ste, double grad_scale);
Tensors lsq_many_forward(Tensors x, Tensors step, Integers qmin, Integers qmax);
tuple<Tensors, Tensors> lsq_many_backward(
    Tensors grad, Tensors x, Tensors step, Integers qmin, Integers qmax, int64_t ste,
    std::vector<double> grad_scale);

tuple<Tensor, Tensor> pact_forward(
    const Tensor& x, const Tensor& alpha, int64_t bits, bool is_signed, optional<int64_t> axis);
tuple<Tensor, Tensor> pact_backward(
    const Tensor& grad, const Tensor& mask, const Tensor& alpha, bool is_signed,
    optional<int64_t> axis);

tuple<Tensor, Tensor> dorefa_activation_forward(const Tensor& x, int64_t bits, bool is_signed);
Tensor dorefa_activation_backward(const Tensor& grad, const Tensor& mask);
tuple<Tensor, Tensor> dorefa_weight_forward(const Tensor& w, int64_t bits);
Tensor dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits, bool detach_max);
tuple<Tensors, Tensor> dorefa_weight_many_forward(Tensors w, Integers bits);
Tensors dorefa_weight_many_backward(
    Tensors grad, Tensors w, const Tensor& maximum, Integers bits, bool detach_max);

Tensor ewgs_forward(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits);
tuple<Tensor, Tensor, Tensor> ewgs_backward(
    const Tensor& grad, const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits,
    double delta, optional<Tensor> delta_tensor);
Tensors ewgs_many_forward(Tensors x, Tensors lower, Tensors upper, Integers bits);
tuple<Tensors, Tensors, Tensors> ewgs_many_backward(
    Tensors grad, Tensors x, Tensors lower, Tensors upper, Integers bits, double delta,
    optional<Tensor> delta_tensor);

Tensor lsqplus_forward(const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits);
tuple<Tensor, Tensor, Tensor> lsqplus_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits,
    double grad_scale);

Tensor seq_forward(const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis);
tuple<Tensor, Tensor> seq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis,
    double grad_scale);

tuple<Tensor, Tensor, Tensor, Tensor> bn_act_quant_forward(
    const BNArguments& given, const RunningStatistics& running, bool with_activation,
    bool with_codes);
tuple<Tensor, Tensor, Tensor, Tensor, Tensor> bn_act_quant_backward(
    const optional<Tensor>& grad, const optional<Tensor>& grad_activation, const Tensor& statistics,
    const BNArguments& given, bool with_residual);

Tensor codes_pack(
    const Tensor& y, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed);
Tensor codes_unpack(
    const Tensor& codes, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed, int64_t count, ScalarType dtype);

tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kd_loss_forward(
    const KDArguments& given, bool with_grad);
Tensor kd_loss_backward(const Tensor& grad, const KDArguments& given);

void cmi_update(
    Tensor state, const Tensor& logits, const Tensor& labels, optional<Tensor> weight,
    optional<Tensor> group);
Tensor cmi_divergence(const Tensor& logits, const Tensor& labels, const Tensor& centroids);
Tensor cmi_divergence_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& labels, const Tensor& centroids);

Tensor augment(
    const Tensor& pixels, const Tensor& index, const Tensor& crop, const Tensor& flip,
    const Tensor& setting, const Tensor& kind, const Tensor& lut, const Tensor& integer,
    const Tensor& real, const optional<Tensor>& share, const optional<Tensor>& erase,
    const optional<Tensor>& partner, const optional<Tensor>& box, const optional<Tensor>& weight,
    const optional<Tensor>& values, ScalarType dtype, bool channels_last);

}  // namespace daqakd::DAQAKD_DEVICE
