#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace daqakd {
// Lists of one call: the tensors of a model, and for each its parameters.
using Tensors = std::vector<torch::stable::Tensor>;
}

// What both directions of kd_loss take; see daqakd/_ops.py.
#define DAQAKD_KD_PARAMETERS                                                                 \
  const torch::stable::Tensor &student, const torch::stable::Tensor &teacher,                \
      std::optional<torch::stable::Tensor> labels, double temperature, double ce_weight,     \
      double kd_weight, std::optional<torch::stable::Tensor> temperature_tensor,             \
      std::optional<torch::stable::Tensor> ce_weight_tensor,                                 \
      std::optional<torch::stable::Tensor> kd_weight_tensor, double label_smoothing,         \
      int64_t ignore_index

// The implementations, once per device; schemas and shapes are daqakd/_ops.py's.
#define DAQAKD_DECLARE_OPS                                                                       \
  torch::stable::Tensor lsq_forward(                                                             \
      const torch::stable::Tensor& x, const torch::stable::Tensor& step, int64_t qmin,           \
      int64_t qmax, std::optional<int64_t> axis);                                                \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor> lsq_backward(                         \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& x,                         \
      const torch::stable::Tensor& step, int64_t qmin, int64_t qmax, std::optional<int64_t> axis, \
      int64_t ste, double grad_scale);                                                           \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor> pact_forward(                         \
      const torch::stable::Tensor& x, const torch::stable::Tensor& alpha, int64_t bits,          \
      bool is_signed, std::optional<int64_t> axis);                                              \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor> pact_backward(                        \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& mask,                      \
      const torch::stable::Tensor& alpha, bool is_signed, std::optional<int64_t> axis);          \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor> dorefa_activation_forward(            \
      const torch::stable::Tensor& x, int64_t bits, bool is_signed);                             \
  torch::stable::Tensor dorefa_activation_backward(                                              \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& mask);                     \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor> dorefa_weight_forward(                \
      const torch::stable::Tensor& w, int64_t bits);                                             \
  torch::stable::Tensor dorefa_weight_backward(                                                  \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& w,                         \
      const torch::stable::Tensor& maximum, int64_t bits, bool detach_max);                      \
  torch::stable::Tensor ewgs_forward(                                                            \
      const torch::stable::Tensor& x, const torch::stable::Tensor& lower,                        \
      const torch::stable::Tensor& upper, int64_t bits);                                         \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor> ewgs_backward( \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& x,                         \
      const torch::stable::Tensor& lower, const torch::stable::Tensor& upper, int64_t bits,      \
      double delta, std::optional<torch::stable::Tensor> delta_tensor);                          \
  void cmi_update(                                                                               \
      torch::stable::Tensor state, const torch::stable::Tensor& logits,                          \
      const torch::stable::Tensor& labels, std::optional<torch::stable::Tensor> weight,          \
      std::optional<torch::stable::Tensor> group);                                               \
  torch::stable::Tensor cmi_divergence(                                                          \
      const torch::stable::Tensor& logits, const torch::stable::Tensor& labels,                  \
      const torch::stable::Tensor& centroids);                                                   \
  torch::stable::Tensor cmi_divergence_backward(                                                 \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& logits,                    \
      const torch::stable::Tensor& labels, const torch::stable::Tensor& centroids);                \
  Tensors lsq_many_forward(                                                                      \
      Tensors x, Tensors step, std::vector<int64_t> qmin, std::vector<int64_t> qmax);            \
  std::tuple<Tensors, Tensors> lsq_many_backward(                                                \
      Tensors grad, Tensors x, Tensors step, std::vector<int64_t> qmin, std::vector<int64_t> qmax,\
      int64_t ste, std::vector<double> grad_scale);                                              \
  std::tuple<Tensors, torch::stable::Tensor> dorefa_weight_many_forward(                         \
      Tensors w, std::vector<int64_t> bits);                                                     \
  Tensors dorefa_weight_many_backward(                                                           \
      Tensors grad, Tensors w, const torch::stable::Tensor& maximum, std::vector<int64_t> bits,  \
      bool detach_max);                                                                          \
  Tensors ewgs_many_forward(                                                                     \
      Tensors x, Tensors lower, Tensors upper, std::vector<int64_t> bits);                       \
  std::tuple<Tensors, Tensors, Tensors> ewgs_many_backward(                                      \
      Tensors grad, Tensors x, Tensors lower, Tensors upper, std::vector<int64_t> bits,          \
      double delta, std::optional<torch::stable::Tensor> delta_tensor);  \
  std::tuple<                                                                                    \
      torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor, torch::stable::Tensor, \
      torch::stable::Tensor>                                                                     \
  kd_loss_forward(DAQAKD_KD_PARAMETERS, int64_t reduction, bool with_grad);                      \
  torch::stable::Tensor kd_loss_backward(                                                        \
      const torch::stable::Tensor& grad, DAQAKD_KD_PARAMETERS, int64_t reduction);

namespace daqakd::cpu {
DAQAKD_DECLARE_OPS
}
namespace daqakd::cuda {
DAQAKD_DECLARE_OPS
}
