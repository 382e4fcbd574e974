#pragma once

#include <cstdint>

namespace daqakd::cuda {

// Sum over a block of Threads threads, for all of them; the same order on every run.
template <int Threads, class T>
__device__ __forceinline__ T block_sum(T value) {
  __shared__ T warps[Threads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_down_sync(0xffffffffu, value, offset);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = warps[0];
#pragma unroll
  for (int warp = 1; warp < Threads / 32; ++warp) sum += warps[warp];
  return sum;
}

// The largest over a block, for all of its threads.
template <int Threads>
__device__ __forceinline__ unsigned block_max(unsigned value) {
  __shared__ unsigned warps[Threads / 32];
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value = max(value, __shfl_down_sync(0xffffffffu, value, offset));
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  for (int warp = 0; warp < Threads / 32; ++warp) value = max(value, warps[warp]);
  return value;
}

// partials [down, copies, channels, group] -> out [channels].
struct Reduction {
  int64_t down, across, copies, channels, group;
  int64_t terms() const { return down * copies * group; }
};

constexpr int kReduceThreads = 512;

// One block: one channel. fp64 costs nothing at this size and keeps the fp32 partial sums' digits.
static __global__ void __launch_bounds__(kReduceThreads) reduce_kernel(
    const float* __restrict__ partials, Reduction shape, float scale,
    float* __restrict__ out) {  // [channels]
  const int64_t channel = blockIdx.x, per_row = shape.copies * shape.group;
  double sum = 0;
  for (int64_t i = threadIdx.x; i < shape.down * per_row; i += kReduceThreads) {
    const int64_t row = i / per_row, copy = i % per_row / shape.group, within = i % shape.group;
    sum += partials[row * shape.across + (copy * shape.channels + channel) * shape.group + within];
  }
  sum = block_sum<kReduceThreads>(sum);
  if (threadIdx.x == 0) out[channel] = float(sum * scale);
}

}  // namespace daqakd::cuda
