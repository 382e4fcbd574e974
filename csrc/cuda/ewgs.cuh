#pragma once

#include "../formulas/ewgs.h"

#include "elementwise.cuh"

namespace daqakd::cuda {

struct EWGSPrepared {
  EWGSRange<float> range;
  float delta;
};

struct EWGS {
  static constexpr int kBits = 0, kSums = 2;
  static constexpr bool kHasDx = true;

  __device__ EWGSPrepared prepare(int64_t) const {
    return {EWGSRange<float>(*lower, *upper, bits), delta_tensor ? *delta_tensor : delta};
  }
  __device__ float value(float x, const EWGSPrepared& all) const {
    return ewgs_quantize(x, all.range);
  }
  __device__ Shares<2> gradient(float g, float x, const EWGSPrepared& all) const {
    const auto one = ewgs_gradient(g, x, all.range, all.delta);
    return {one.dx, {one.dlower, one.dupper}};
  }

  const float *lower, *upper, *delta_tensor;  // [], the last or null
  int64_t bits;
  float delta;
};

inline void check_range(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits) {
  check_parameter("lower", lower, x, std::nullopt);
  check_parameter("upper", upper, x, std::nullopt);
  check_bits(bits, false);
}

}  // namespace daqakd::cuda
