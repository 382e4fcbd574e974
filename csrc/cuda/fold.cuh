#pragma once

#include <algorithm>

#include "counter.cuh"
#include "reduce.cuh"

// Partial sums of a launch, added up by its last block instead of by another launch.
namespace daqakd::cuda {

// An estimate: a launch costs about 2 us of the device, and more of the host where that decides; a
// warp adds 32 partial sums in about 0.3 us, and the last block has 8 warps.
constexpr int kFoldWarps = kReduceThreads / 32, kMostFoldSteps = 8 * kFoldWarps;
inline int64_t fold_steps(int64_t outputs, int64_t terms) {
  return outputs * ((std::min<int64_t>(terms, kReduceThreads) + 31) / 32);
}
inline bool can_fold(const Reduction& shape) {
  return shape.channels == 1 || fold_steps(shape.channels, shape.terms()) <= kMostFoldSteps;
}

// What the last block makes of the partials [kSums, blocks] of all, with the bits of reduce_kernel.
// An op may make one number of its sums over a tensor by finish(totals).
struct Fold {
  template <int kSums, class Op>
  __device__ __forceinline__ void run(const float* partials, const Op& op) const {
    if (!out[0] || !counter.is_last()) return;
    const int64_t terms = shape.terms(), channels = shape.channels;
    if (channels > 1) {
      for (int64_t channel = threadIdx.x / 32; channel < channels; channel += kFoldWarps) {
        const double sum =
            warp_total(terms, [&](int64_t i) { return __ldcg(partials + shape.at(channel, i)); });
        if (threadIdx.x % 32 == 0) out[0][channel] = float(sum * scale);
      }
      return;
    }
    double totals[kSums];
#pragma unroll
    for (int s = 0; s < kSums; ++s) {
      totals[s] = block_total(terms, [&](int64_t i) { return __ldcg(partials + s * terms + i); });
      __syncthreads();
    }
    if (threadIdx.x != 0) return;
    if constexpr (requires { op.finish(totals); }) {
      *out[0] = op.finish(totals);
    } else {
#pragma unroll
      for (int s = 0; s < kSums; ++s) *out[s] = float(totals[s] * scale);
    }
  }

  float* out[2];  // [channels] of each sum, of the first alone with several channels; null without
  Reduction shape;
  float scale;
  Counter counter;
};

}  // namespace daqakd::cuda
