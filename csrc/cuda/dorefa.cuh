#pragma once

#include "../formulas/dorefa.h"

#include "backward.cuh"

// What DoReFa's weights need to know of a whole tensor, from the partials of an earlier launch; for
// one tensor and for many, so that both have the same bits.
namespace daqakd::cuda {

// What each of the largest weights gets of the maximum's gradient, from op's sums.
__device__ __forceinline__ float dorefa_tie_gradient(double sum, double ties, float maximum) {
  return -float(sum) / (maximum * maximum) / float(ties);
}

// The partials of a tensor, one per block; every block that needs them adds them.
struct BlockPartials {
  static_assert(kThreads == kReduceThreads);

  __device__ double sum(int64_t k) const {
    const double sum =
        block_total(blocks, [&](int64_t i) { return __ldcg(partials + k * blocks + i); });
    __syncthreads();
    return sum;
  }
  __device__ float largest() const {
    unsigned largest = 0;
    for (int64_t i = threadIdx.x; i < blocks; i += kThreads)
      largest = max(largest, __float_as_uint(__ldcg(partials + i)));
    return __uint_as_float(block_max<kThreads>(largest));
  }

  // max|tanh(w)| = tanh(max|w|): no second tanh, and the largest weight equals it exactly. At 1 bit
  // mean|w|.
  __device__ float magnitude(int64_t bits) const {
    return bits == 1 ? float(sum(0) / double(numel)) : tanh_of(largest());
  }
  // What each of the largest weights gets of the maximum's gradient; at 1 bit the mean gradient
  // that every weight gets.
  __device__ float tie_gradient(float maximum, int64_t bits) const {
    const double total = sum(0);
    if (bits == 1) return float(total / double(numel));
    return dorefa_tie_gradient(total, sum(1), maximum);
  }

  const float* partials;  // [sums, blocks]
  int64_t blocks, numel;
};

// The largest |w| as bits, which are ordered like |w|, with NaN above everything; at 1 bit sum|w|.
template <class T>
__device__ __forceinline__ void magnitude_tile(
    const T* __restrict__ w, const Tile<false>& tile, bool aligned, int64_t bits, float* partial) {
  constexpr int W = kVector<T>;
  unsigned largest = 0;
  float sum = 0.0f;
  each_pack<W>(w, tile, aligned, [&](const Pack<T, W>& pack, int64_t, int left) {
#pragma unroll
    for (int i = 0; i < W; ++i) {
      const float size = i < left ? std::fabs(load(pack.value[i])) : 0.0f;
      largest = max(largest, __float_as_uint(size));
      sum += size;
    }
  });
  largest = block_max<kThreads>(largest);
  sum = block_sum<kThreads>(sum);
  if (threadIdx.x == 0) *partial = bits == 1 ? sum : __uint_as_float(largest);
}

}  // namespace daqakd::cuda
