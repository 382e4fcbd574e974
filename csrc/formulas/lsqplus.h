#pragma once

#include <cstdint>

#include "../common/math.h"
#include "elementwise.h"

namespace daqakd {

// LSQ+, Bhalgat et al. 2020, equations 1 to 5, codes 0 to 2^b - 1, in the compute type T.
template <class T>
struct LSQPlusGrid {
  DAQAKD_INLINE LSQPlusGrid(T step, T offset, int64_t bits)
      : step(step), offset(offset), highest(T((1 << bits) - 1)) {}

  Step<T> step;
  T offset, highest;
};

template <class T>
struct LSQPlusGradient {
  T dx, dstep, doffset;  // the last two: what one element adds, before the gradient scale
};

template <class T>
DAQAKD_INLINE T lsqplus_code(T position, const LSQPlusGrid<T>& grid) {
  return round_half_even(clip(position, T(0), grid.highest));
}

template <class T>
DAQAKD_INLINE T lsqplus_quantize(T x, const LSQPlusGrid<T>& grid) {
  const T position = grid.step.divide(x - grid.offset);
  return lsqplus_code(position, grid) * grid.step.value + grid.offset;
}

template <class T>
DAQAKD_INLINE LSQPlusGradient<T> lsqplus_gradient(T grad, T x, const LSQPlusGrid<T>& grid) {
  const T position = grid.step.divide(x - grid.offset), code = lsqplus_code(position, grid);
  const T inside = keep_within(position, position, T(0), grid.highest);
  const T dx = keep_within(grad, position, T(0), grid.highest);
  return {dx, grad * (code - inside), grad - dx + T(0) * code};  // of NaN all sums are NaN
}

// prepare() is the device's: the CPU holds the grid, CUDA the tensors it follows from.
template <class T>
struct LSQPlus {
  static constexpr int kBits = 0, kSums = 2;
  static constexpr bool kHasDx = true;

  using Prepared = LSQPlusGrid<T>;
  DAQAKD_INLINE T value(T x, const Prepared& grid) const { return lsqplus_quantize(x, grid); }
  DAQAKD_INLINE Contribution<T, 2> gradient(T g, T x, const Prepared& grid) const {
    const LSQPlusGradient<T> one = lsqplus_gradient(g, x, grid);
    return {one.dx, {one.dstep, one.doffset}};
  }
};

}  // namespace daqakd
