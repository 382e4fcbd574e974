#pragma once

#include "probe.cuh"

// Kernels that each break one rule, on the line that ends with `// here`.
namespace probes {

__global__ void race(float* data, int64_t) {
  __shared__ float cell;
  if (threadIdx.x == 0) cell = 1;
  data[own()] = cell;  // here
}

__global__ void race_after_read(float* data, int64_t) {
  const int first = own() / kThreads * kThreads;
  if (data[first] > 0) return;
  if (threadIdx.x == 33) data[first] = 1;  // here
}

__global__ void race_within_a_warp(float* data, int64_t) {
  __shared__ float cells[64];
  cells[threadIdx.x] = 1;
  data[own()] = cells[threadIdx.x ^ 1];  // here
}

__global__ void race_between_blocks(float* data, int64_t) {
  if (threadIdx.x == 0) data[0] = float(blockIdx.x);  // here
}

__global__ void missing_fence(float* data, int64_t) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    data[8 + blockIdx.x] = 1;
    last = atomicInc(reinterpret_cast<unsigned*>(data), gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  float sum = 0;
  for (int b = 0; b < int(gridDim.x); ++b) sum += data[8 + b];  // here
  if (threadIdx.x == 0) data[1] = sum;
}

__global__ void no_fence_after(float* data, int64_t) {
  __shared__ bool last;
  if (threadIdx.x == 0) {
    data[8 + blockIdx.x] = 1;
    __threadfence();
    last = atomicInc(reinterpret_cast<unsigned*>(data), gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  float sum = 0;
  for (int b = 0; b < int(gridDim.x); ++b) sum += data[8 + b];  // here
  if (threadIdx.x == 0) data[1] = sum;
}

__global__ void write_by_another_thread(float* data, int64_t) {
  __shared__ bool last;
  if (threadIdx.x == 1) data[8 + blockIdx.x] = 1;
  if (threadIdx.x == 0) {  // no barrier: its fence does not cover what thread 1 writes
    __threadfence();
    last = atomicInc(reinterpret_cast<unsigned*>(data), gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  float sum = 0;
  for (int b = 0; b < int(gridDim.x); ++b) sum += data[8 + b];  // here
  if (threadIdx.x == 0) data[1] = sum;
}

__global__ void beyond_the_end(float* data, int64_t n) {
  if (own() == 0) data[n] = 1;  // here
}

__global__ void before_the_start(float* data, int64_t) {
  if (own() == 0) data[1] = data[-1];  // here
}

__global__ void misaligned(float* data, int64_t) {
  if (own() != 0) return;
  const uint4 bits = *reinterpret_cast<const uint4*>(data + 1);  // here
  data[0] = float(bits.x);
}

__global__ void misaligned_store(float* data, int64_t) {
  const uint4 bits{};
  if (own() == 0) DAQAKD_STORE_16(data + 1, bits);  // here
}

__global__ void through_const(const float* data, int64_t) {
  if (own() == 0) const_cast<float*>(data)[0] = 1;  // here
}

__global__ void undefined_shared(float* data, int64_t n) {
  __shared__ float cells[64];
  if (n < 0) cells[1] = 1;
  if (threadIdx.x == 0) data[own()] = cells[1];  // here
}

__global__ void undefined_scratch(float* data, int64_t n) {
  if (own() == 0) data[0] = data[n - 1];  // here
}

__global__ void some_miss_the_barrier(float*, int64_t) {
  if (threadIdx.x < 40) __syncthreads();  // here
}

__global__ void two_barriers(float* data, int64_t) {
  if (threadIdx.x < 32)
    __syncthreads();
  else
    __syncthreads();  // here
  data[own()] = 0;
}

__global__ void lane_is_gone(float* data, int64_t) {
  if (threadIdx.x % 32 == 31) return;
  data[own()] = __shfl_down_sync(~0u, 1.0f, 1);  // here
}

__global__ void lane_is_elsewhere(float* data, int64_t) {
  float value = 1;
  if (threadIdx.x % 2 == 0) value = __shfl_xor_sync(~0u, value, 2);  // here
  __syncthreads();
  data[own()] = value;
}

__global__ void outside_its_mask(float* data, int64_t) {
  data[own()] = __shfl_xor_sync(0xffffu, 1.0f, 1);  // here
}

__global__ void two_masks(float* data, int64_t) {
  const unsigned mask = threadIdx.x % 32 < 16 ? 0xffffu : ~0u;
  data[own()] = __shfl_xor_sync(mask, 1.0f, 1);  // here
}

__global__ void traps(float*, int64_t n) {
  if (n > 0) __trap();  // here
}

__global__ void narrow_product(float* data, int64_t n) {
  const int rows = 1 << 20, columns = int(n) << 8;
  data[own()] = float(rows * columns);  // here
}

__global__ void wide_shift(float* data, int64_t n) {
  data[own()] = float(1u << int(n));  // here
}

__global__ void beyond_an_array(float* data, int64_t n) {
  float kept[4];
  for (int i = 0; i < 4; ++i) kept[i] = data[i];
  data[own()] = kept[n % 4 + 4];  // here
}

}  // namespace probes
