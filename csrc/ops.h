#pragma once

#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

// The implementations, once per device; schemas and shapes are daqakd/_ops.py's.
#define DAQAKD_DECLARE_OPS                                                                       \
  torch::stable::Tensor lsq_forward(                                                             \
      const torch::stable::Tensor& x, const torch::stable::Tensor& step, int64_t qmin,           \
      int64_t qmax, std::optional<int64_t> axis);                                                \
  std::tuple<torch::stable::Tensor, torch::stable::Tensor> lsq_backward(                         \
      const torch::stable::Tensor& grad, const torch::stable::Tensor& x,                         \
      const torch::stable::Tensor& step, int64_t qmin, int64_t qmax, std::optional<int64_t> axis, \
      int64_t ste, double grad_scale);

namespace daqakd::cpu {
DAQAKD_DECLARE_OPS
}
namespace daqakd::cuda {
DAQAKD_DECLARE_OPS
}
