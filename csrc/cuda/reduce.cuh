#pragma once

#include <cstdint>

namespace daqakd::cuda {

// Sum over the lanes of a warp, for its first; the same order on every run.
template <class T>
__device__ __forceinline__ T warp_sum(T value) {
#pragma unroll
  for (int offset = 16; offset > 0; offset /= 2)
    value += __shfl_down_sync(0xffffffffu, value, offset);
  return value;
}

// Sum over a block of Threads threads, for all of them; the same order on every run.
template <int Threads, class T>
__device__ __forceinline__ T block_sum(T value) {
  __shared__ T warps[Threads / 32];
  value = warp_sum(value);
  if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = value;
  __syncthreads();
  T sum = warps[0];
#pragma unroll
  for (int warp = 1; warp < Threads / 32; ++warp) sum += warps[warp];
  return sum;
}

// The same for K sums at a time.
template <int Threads, class T, int K>
__device__ __forceinline__ void block_sums(T (&values)[K]) {
  __shared__ T warps[K][Threads / 32];
#pragma unroll
  for (int k = 0; k < K; ++k) {
    values[k] = warp_sum(values[k]);
    if (threadIdx.x % 32 == 0) warps[k][threadIdx.x / 32] = values[k];
  }
  __syncthreads();
#pragma unroll
  for (int k = 0; k < K; ++k) {
    values[k] = warps[k][0];
#pragma unroll
    for (int warp = 1; warp < Threads / 32; ++warp) values[k] += warps[k][warp];
  }
}

// The sum of column i of what the lines of a block's threads have left, one after the other.
template <int Lines, int Width>
__device__ __forceinline__ float add_lines(const float (&lines)[Lines][Width], int i) {
  float total = lines[0][i];
#pragma unroll
  for (int line = 1; line < Lines; ++line) total += lines[line][i];
  return total;
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

// Partial sums are added in fp64, which costs nothing at their number and keeps their digits, and
// in one order: kReduceThreads threads take them in turn, then warps add up, one after the other.
constexpr int kReduceThreads = 256;

// The sum of term(0) .. term(terms - 1), for every thread of a block of kReduceThreads.
template <class F>
__device__ __forceinline__ double block_total(int64_t terms, const F& term) {
  double sum = 0;
#pragma unroll 4
  for (int64_t i = threadIdx.x; i < terms; i += kReduceThreads) sum += term(i);
  return block_sum<kReduceThreads>(sum);
}

// The same bits from one warp, which plays the block's warps in turn; for its first lane.
template <class F>
__device__ __forceinline__ double warp_total(int64_t terms, const F& term) {
  double total = 0;
  for (int first = 0; first < kReduceThreads && first < terms; first += 32) {
    double sum = 0;
    for (int64_t i = first + threadIdx.x % 32; i < terms; i += kReduceThreads) sum += term(i);
    total += warp_sum(sum);
  }
  return total;
}

// partials [down, copies, channels, group] -> out [channels].
struct Reduction {
  int64_t down, across, copies, channels, group;

  __host__ __device__ int64_t terms() const { return down * copies * group; }
  // Where term i of a channel lies; a single channel's lie one after the other.
  __device__ __forceinline__ int64_t at(int64_t channel, int64_t i) const {
    if (channels == 1 || down * copies == 1) return channel * group + i;
    const unsigned run = unsigned(i) / unsigned(group), row = run / unsigned(copies);
    const unsigned copy = run % unsigned(copies), within = unsigned(i) % unsigned(group);
    return row * across + (copy * channels + channel) * group + within;
  }
};

// One block: one channel.
static __global__ void __launch_bounds__(kReduceThreads) reduce_kernel(
    const float* __restrict__ partials, Reduction shape, float scale,
    float* __restrict__ out) {  // [channels]
  const int64_t channel = blockIdx.x;
  const double sum =
      block_total(shape.terms(), [&](int64_t i) { return partials[shape.at(channel, i)]; });
  if (threadIdx.x == 0) out[channel] = float(sum * scale);
}

}  // namespace daqakd::cuda
