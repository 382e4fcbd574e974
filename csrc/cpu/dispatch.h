#pragma once

#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include "../common/layout.h"
#include "element.h"

namespace daqakd::cpu {

// Calls body with a value of the storage type of `x`.
template <class F>
void by_dtype(const Tensor& x, const F& body) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return body(float{});
    case ScalarType::Double:
      return body(double{});
    case ScalarType::Half:
      return body(Half{});
    case ScalarType::BFloat16:
      return body(BFloat16{});
    default:
      STD_TORCH_CHECK(
          false, "x: expected float16, bfloat16, float32 or float64, got ",
          torch::headeronly::toString(x.scalar_type()));
  }
}

}  // namespace daqakd::cpu
