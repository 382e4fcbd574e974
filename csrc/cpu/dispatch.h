#pragma once

#include "../common/check.h"
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
      check_floating("x", x);
  }
}

}  // namespace daqakd::cpu
