#pragma once

#include "../../../../csrc/cuda/launch.cuh"

namespace probes {

using daqakd::Tensor;
constexpr int64_t kBlocks = 3;
constexpr int kThreads = 64;

// This thread's own element.
__device__ inline int own() { return int(blockIdx.x * kThreads + threadIdx.x); }

}  // namespace probes
