#pragma once

#include "launch.cuh"

namespace daqakd::cuda {

// A number, or a 0-dim tensor that a captured graph reads anew.
struct Scalar {
  __device__ float value() const { return tensor ? *tensor : number; }
  const float* tensor;
  float number;
};

// A small tensor as the kernels read it, to be kept while they are launched.
inline optional<Tensor> as_floats(const optional<Tensor>& tensor) {
  if (!tensor) return std::nullopt;
  return as_parameter(*tensor, ScalarType::Float);
}

inline Scalar scalar_of(const optional<Tensor>& tensor, double number) {
  return {tensor ? data<float>(*tensor) : nullptr, float(number)};
}

}  // namespace daqakd::cuda
