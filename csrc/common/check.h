#pragma once

#include <cfloat>
#include <cmath>

#include "layout.h"
#include "require.h"

// The public functions check first and say more; these keep a direct call from reading wild memory.
namespace daqakd {

inline const char* name_of(ScalarType type) { return torch::headeronly::toString(type); }

inline bool is_floating(ScalarType type) {
  return type == ScalarType::Half || type == ScalarType::BFloat16 || type == ScalarType::Float ||
         type == ScalarType::Double;
}

// Memory for every element: a storage can be freed or cut short under a tensor.
inline void check_memory(const char* name, const Tensor& x) {
  int64_t bytes = 0, last = x.storage_offset();
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_storage_size(x.get(), &bytes));
  for (int64_t d = 0; d < x.dim(); ++d) {
    if (x.size(d) == 0) return;
    last += (x.size(d) - 1) * x.stride(d);
  }
  require(
      (last + 1) * int64_t(x.element_size()) <= bytes, name,
      ": its storage is smaller than the tensor; allocate it before the call");
}

// On the device that this library is for, with memory.
inline void check_tensor(const char* name, const Tensor& x) {
#if defined(USE_CUDA) && !defined(DAQAKD_EMULATED)
  require(x.is_cuda(), name, ": expected a tensor on cuda; move it");
#else
  require(x.is_cpu(), name, ": expected a tensor on the cpu; move it");
#endif
  check_memory(name, x);
}

inline void check_floating(const char* name, const Tensor& x) {
  require(
      is_floating(x.scalar_type()), name, ": expected float16, bfloat16, float32 or float64, got ",
      name_of(x.scalar_type()));
}

// The tensor that decides an op's dtype and device.
inline void check_input(const char* name, const Tensor& x) {
  check_tensor(name, x);
  check_floating(name, x);
}

// A tensor beside the input.
inline void check_beside(const char* name, const Tensor& value, const Tensor& x) {
  require(value.device() == x.device(), name, ": is on another device than the input; move it");
  check_memory(name, value);
}

inline void check_parameter(
    const char* name, const Tensor& parameter, const Tensor& x, optional<int64_t> axis) {
  const int64_t dim = x.dim();
  require(
      !axis.has_value() || (-dim <= *axis && *axis < dim), "axis: expected a dimension of the ",
      dim, "-D input, got ", axis.value_or(0));
  const int64_t wanted = axis.has_value() ? x.size(*axis < 0 ? *axis + dim : *axis) : 1;
  require(
      parameter.numel() == wanted, name, ": expected ", wanted, " values, got ", parameter.numel());
  check_floating(name, parameter);
  check_beside(name, parameter, x);
}

inline void check_parameter(const char* name, const optional<Tensor>& parameter, const Tensor& x) {
  if (parameter) check_parameter(name, *parameter, x, std::nullopt);
}

inline void check_same(const char* name, const Tensor& value, const Tensor& x) {
  require(
      value.dim() == x.dim() &&
          std::equal(value.sizes().begin(), value.sizes().end(), x.sizes().begin()),
      name, ": expected the shape of the input");
  require(
      value.scalar_type() == x.scalar_type() && value.device() == x.device(), name,
      ": expected the dtype and device of the input");
  check_memory(name, value);
}

inline void check_mask(const Tensor& mask, const Tensor& grad, int bits) {
  const int64_t wanted = mask_size(grad.numel(), bits);
  require(
      mask.scalar_type() == ScalarType::Byte && mask.dim() == 1 && mask.numel() == wanted &&
          mask.is_contiguous(),
      "mask: expected ", wanted, " contiguous bytes for the gradient's elements, got ",
      mask.numel(), " of ", name_of(mask.scalar_type()));
  check_beside("mask", mask, grad);
}

inline void check_bits(int64_t bits, bool is_signed) {
  require(
      (is_signed ? 2 : 1) <= bits && bits <= 8, "bits: expected ", is_signed ? 2 : 1, " to 8, got ",
      bits);
}

// A number that float32 holds.
inline void check_number(const char* name, double value) {
  require(std::fabs(value) <= FLT_MAX, name, ": expected a finite number, got ", value);
}

inline void check_lengths(size_t tensors, std::initializer_list<size_t> others) {
  for (const size_t other : others)
    require(
        other == tensors, "expected one of each per tensor: ", tensors, " tensors, but ", other);
}

inline int64_t check_some(const char* name, const Tensors& tensors) {
  require(!tensors.empty(), name, ": expected at least one tensor");
  for (const Tensor& tensor : tensors) {
    check_input(name, tensor);
    require(
        tensor.scalar_type() == tensors[0].scalar_type() && tensor.device() == tensors[0].device(),
        name, ": expected tensors of one dtype on one device");
  }
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
