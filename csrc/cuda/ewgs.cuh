#pragma once

#include "../formulas/ewgs.h"

#include "elementwise.cuh"

namespace daqakd::cuda {

struct DeviceEWGS : EWGS<float> {
  __device__ Prepared prepare(int64_t) const {
    return {EWGSRange<float>(*lower, *upper, bits), delta_tensor ? *delta_tensor : delta};
  }

  const float *lower, *upper, *delta_tensor;  // [], the last or null
  int64_t bits;
  float delta;
};

}  // namespace daqakd::cuda
