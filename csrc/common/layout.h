#pragma once

#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/csrc/stable/macros.h>
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "types.h"

#ifndef STABLE_TORCH_ERROR_CODE_CHECK  // torch 2.11 has it by its older name
#define STABLE_TORCH_ERROR_CODE_CHECK TORCH_ERROR_CODE_CHECK
#endif

namespace daqakd {

// A dense tensor in memory order: [outer, channels, inner], one parameter per channel.
struct View {
  int64_t outer, channels, inner;
  int64_t numel() const { return outer * channels * inner; }
};

// Dense: the elements fill their storage without gaps or overlaps, in any order of dimensions.
inline bool is_dense(const Tensor& x) {
  if (x.is_contiguous()) return true;
  const auto sizes = x.sizes(), strides = x.strides();
  std::vector<std::pair<int64_t, int64_t>> order;  // (stride, size)
  for (int64_t d = 0; d < x.dim(); ++d)
    if (sizes[d] != 1) order.emplace_back(strides[d], sizes[d]);
  std::sort(order.begin(), order.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : order) {
    if (stride != expected) return false;
    expected *= size;
  }
  return true;
}

inline View view_of(const Tensor& x, optional<int64_t> axis) {
  const int64_t numel = x.numel();
  if (!axis.has_value()) return {1, 1, numel};
  const int64_t d = *axis < 0 ? *axis + x.dim() : *axis;
  const int64_t channels = x.size(d);
  if (channels <= 1 || numel == 0) return {1, channels, numel};
  const int64_t inner = x.stride(d);
  return {numel / (channels * inner), channels, inner};
}

// torch.empty_like(x); the shim call costs a fraction of a trip through the dispatcher.
inline Tensor empty_as(const Tensor& x) {
  if (!is_dense(x)) return torch::stable::empty_like(x);
  int32_t dtype, device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x.get(), &device_index));
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      x.dim(), x.sizes().data(), x.strides().data(), dtype, device_type, device_index, &result));
  return Tensor(result);
}

inline int32_t shim_dtype(ScalarType type) {
  switch (type) {
    case ScalarType::Byte:
      return aoti_torch_dtype_uint8();
    case ScalarType::Half:
      return aoti_torch_dtype_float16();
    case ScalarType::BFloat16:
      return aoti_torch_dtype_bfloat16();
    case ScalarType::Double:
      return aoti_torch_dtype_float64();
    default:
      return aoti_torch_dtype_float32();
  }
}

// Uninitialized, float, double, 16-bit float or bytes, on the device of `model`.
inline Tensor empty_strided(
    const Tensor& model, const int64_t* sizes, const int64_t* strides, int64_t dim,
    ScalarType type) {
  const int32_t dtype = shim_dtype(type);
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(model.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(model.get(), &device_index));
  AtenTensorHandle result;
  STABLE_TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, sizes, strides, dtype, device_type, device_index, &result));
  return Tensor(result);
}

inline Tensor empty(const Tensor& model, const int64_t* sizes, int64_t dim, ScalarType type) {
  std::vector<int64_t> strides(dim, 1);
  for (int64_t d = dim - 2; d >= 0; --d)
    strides[d] = strides[d + 1] * std::max<int64_t>(sizes[d + 1], 1);
  return empty_strided(model, sizes, strides.data(), dim, type);
}

inline Tensor empty_contiguous(const Tensor& model, ScalarType type) {
  return empty(model, model.sizes().data(), model.dim(), type);
}

inline Tensor empty_scalar(const Tensor& model, ScalarType type) {
  return empty(model, nullptr, 0, type);
}

inline Tensor scratch(const Tensor& model, int64_t count) {
  return empty(model, &count, 1, ScalarType::Float);
}

inline int64_t mask_size(int64_t elements, int bits) { return (elements * bits + 7) / 8; }

inline Tensor empty_mask(const Tensor& x, int bits) {
  const int64_t size = mask_size(x.numel(), bits);
  return empty(x, &size, 1, ScalarType::Byte);
}

// `x` itself when dense, else a dense copy with the strides of torch.empty_like(x).
inline Tensor dense(const Tensor& x) {
  if (is_dense(x)) return x;
  Tensor copy = torch::stable::empty_like(x);
  torch::stable::copy_(copy, x);
  return copy;
}

inline Tensor as_contiguous(const Tensor& x) {
  return x.is_contiguous() ? x : torch::stable::contiguous(x);
}

inline bool same_strides(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d)
    if (a.size(d) != 1 && a.stride(d) != b.stride(d)) return false;
  return true;
}

// `x` with the strides of the dense tensor `model` of the same shape.
inline Tensor in_strides_of(const Tensor& x, const Tensor& model) {
  if (same_strides(x, model)) return x;
  Tensor copy = empty_as(model);
  torch::stable::copy_(copy, x);
  return copy;
}

// 16-bit floats are read by types of this project or of CUDA, so pointers are taken untyped.
template <class T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* mutable_data(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// A small parameter tensor, contiguous and of type `type`.
inline Tensor as_parameter(const Tensor& parameter, ScalarType type) {
  Tensor result = parameter.scalar_type() == type
                      ? parameter
                      : torch::stable::to(parameter, std::make_optional(type));
  return as_contiguous(result);
}

}  // namespace daqakd
