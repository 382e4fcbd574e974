#pragma once

#include <torch/headeronly/util/Exception.h>

#include "layout.h"

namespace daqakd {

// The public functions check first and say more; these keep a direct call from reading wild memory.
inline void check_parameter(
    const char* name, const Tensor& parameter, const Tensor& x, optional<int64_t> axis) {
  const int64_t dim = x.dim();
  STD_TORCH_CHECK(
      !axis.has_value() || (-dim <= *axis && *axis < dim), "axis: expected a dimension of the ",
      dim, "-D input, got ", axis.value_or(0));
  const int64_t wanted = axis.has_value() ? x.size(*axis < 0 ? *axis + dim : *axis) : 1;
  STD_TORCH_CHECK(
      parameter.numel() == wanted, name, ": expected ", wanted, " values, got ", parameter.numel());
  STD_TORCH_CHECK(
      parameter.device() == x.device(), name, ": is on another device than the input; move it");
}

inline void check_same(const char* name, const Tensor& value, const Tensor& x) {
  STD_TORCH_CHECK(
      value.dim() == x.dim() &&
          std::equal(value.sizes().begin(), value.sizes().end(), x.sizes().begin()),
      name, ": expected the shape of the input");
  STD_TORCH_CHECK(
      value.scalar_type() == x.scalar_type() && value.device() == x.device(), name,
      ": expected the dtype and device of the input");
}

inline void check_mask(const Tensor& mask, const Tensor& grad, int bits) {
  const int64_t wanted = mask_size(grad.numel(), bits);
  STD_TORCH_CHECK(
      mask.scalar_type() == ScalarType::Byte && mask.numel() == wanted && mask.is_contiguous(),
      "mask: expected ", wanted, " contiguous bytes for the gradient's elements, got ",
      mask.numel(), " of ", torch::headeronly::toString(mask.scalar_type()));
  STD_TORCH_CHECK(
      mask.device() == grad.device(), "mask: is on another device than the gradient; move it");
}

inline void check_bits(int64_t bits, bool is_signed) {
  STD_TORCH_CHECK(
      (is_signed ? 2 : 1) <= bits && bits <= 8, "bits: expected ", is_signed ? 2 : 1, " to 8, got ",
      bits);
}

inline void check_lengths(size_t tensors, std::initializer_list<size_t> others) {
  for (const size_t other : others)
    STD_TORCH_CHECK(
        other == tensors, "expected one of each per tensor: ", tensors, " tensors, but ", other);
}

inline int64_t check_some(const Tensors& tensors) {
  STD_TORCH_CHECK(!tensors.empty(), "expected at least one tensor");
  for (const Tensor& tensor : tensors)
    STD_TORCH_CHECK(
        tensor.scalar_type() == tensors[0].scalar_type() && tensor.device() == tensors[0].device(),
        "expected tensors of one dtype on one device");
  return int64_t(tensors.size());
}

// A parameter list is one value for its tensor, or one per row.
inline optional<int64_t> row_axis(const Tensor& parameter) {
  return parameter.numel() == 1 ? std::nullopt : std::make_optional<int64_t>(0);
}

inline ScalarType accumulation_type(const Tensor& x) {
  return x.scalar_type() == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
}

}  // namespace daqakd
