#pragma once

#include "probe.cuh"

// Kernels that use what the emulator offers rightly; tests know their results.
namespace probes {

__global__ void shuffles(float* data, int64_t) {
  const int t = int(threadIdx.x);
  float value = float(t);
  value += __shfl_xor_sync(~0u, value, 1);
  value += __shfl_down_sync(~0u, value, 3, 8);
  value += __shfl_up_sync(~0u, value, 2);
  value += __shfl_sync(~0u, value, 5, 16);
  if (blockIdx.x == 0) data[t] = value;
}

__global__ void votes(float* data, int64_t) {
  const int t = int(threadIdx.x), lane = t % 32;
  if (lane >= 24) return;
  const unsigned mask = 0xffffffu;
  const unsigned odd = __ballot_sync(mask, lane % 2);
  const int any = __any_sync(mask, lane == 7), all = __all_sync(mask, lane < 23);
  const unsigned sum = __reduce_add_sync(mask, unsigned(t)), most = __reduce_max_sync(mask, t);
  __syncwarp(mask);
  if (blockIdx.x == 0)
    data[t] = float(odd & 0xffu) + 1000.0f * any + 2000.0f * all + 4000.0f * sum + 0.5f * most;
}

// Every block counts; the last adds what all have left, in one order.
__global__ void last_block(float* data, int64_t) {
  __shared__ bool last;
  if (threadIdx.x == 5) data[8 + blockIdx.x] = float(blockIdx.x + 1);
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(reinterpret_cast<unsigned*>(data), gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  float sum = 0;
  for (int b = 0; b < int(gridDim.x); ++b) sum = 10 * sum + data[8 + b];
  if (threadIdx.x == 0) data[1] = sum;
}

__global__ void atomics(float* data, int64_t) {
  unsigned* words = reinterpret_cast<unsigned*>(data);
  atomicAdd(words, threadIdx.x);
  atomicMax(words + 1, threadIdx.x);
  atomicMin(words + 2, threadIdx.x + 1);
}

// Right by every rule, but float sums depend on who comes first.
__global__ void depends_on_order(float* data, int64_t) {
  atomicAdd(data, 1.0f / float(1 + threadIdx.x + 64 * blockIdx.x));
}

__global__ void dynamic_shared(float* data, int64_t) {
  DAQAKD_DYNAMIC_SHARED(float, cells);
  cells[threadIdx.x] = float(threadIdx.x);
  __syncthreads();
  if (blockIdx.x == 0) data[threadIdx.x] = cells[63 - threadIdx.x];
}

// Two launches: one leaves bytes that look undefined, the other reads them.
__global__ void leaves_ones(unsigned* cells, int64_t) { cells[threadIdx.x] = ~0u; }
__global__ void reads_ones(const unsigned* cells, float* data) {
  data[threadIdx.x] = float(cells[threadIdx.x] & 255u);
}

struct Large {
  char bytes[5000];
};
__global__ void many_parameters(float*, Large) {}

}  // namespace probes
