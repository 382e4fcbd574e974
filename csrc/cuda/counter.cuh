#pragma once

#include <mutex>
#include <unordered_map>

#include "../common/layout.h"
#include "launch.cuh"

// How a launch finds the last of its blocks to be done, which adds up what all of them have left.
namespace daqakd::cuda {

// How many blocks of a stream's launch are done; a launch leaves 0 to the next, which waits for it.
constexpr unsigned kStreams = 4096;
static __device__ unsigned done_blocks[kStreams];

struct Counter {
  // Whether the other blocks are done. All threads of a block call it together; those of the last
  // one then see what the others wrote before their call, if they read past L1.
  __device__ __forceinline__ bool is_last() const {
    __shared__ bool last;
    __syncthreads();
    if (gridDim.x == 1) return true;
    if (threadIdx.x == 0) {
      __threadfence();
      unsigned* counter = own ? own : done_blocks + stream;
      last = atomicInc(counter, gridDim.x - 1) == gridDim.x - 1;
    }
    __syncthreads();
    if (last) __threadfence();
    return last;
  }

  unsigned* own;    // a 0 of this launch alone, or null: then the stream's
  unsigned stream;  // place in done_blocks
};

// The place of a stream's counter: its launches run one after the other, so they can share one.
// Numbers name streams, for a handle may return, and one handle stands for every thread's own
// stream. None for a captured launch, for graphs run at any time, and none beyond kStreams streams.
inline optional<unsigned> place_of(cudaStream_t stream) {
  static std::mutex mutex;
  static std::unordered_map<unsigned long long, unsigned> streams;
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  unsigned long long number = 0;
  if (cudaStreamIsCapturing(stream, &status) != cudaSuccess) cudaGetLastError();
  if (status == cudaStreamCaptureStatusActive) return std::nullopt;
  if (cudaStreamGetId(stream, &number) != cudaSuccess) return cudaGetLastError(), std::nullopt;
  const std::lock_guard<std::mutex> lock(mutex);
  if (const auto found = streams.find(number); found != streams.end()) return found->second;
  if (streams.size() == kStreams) return std::nullopt;
  return streams.emplace(number, unsigned(streams.size())).first->second;
}

// The counter of a launch that counts its blocks: the stream's, or one in memory of its own, whose
// zero is written on the same stream and captured with the launch.
class LaunchCounter {
 public:
  LaunchCounter(const Launch& launch, const Tensor& model, bool counts) {
    if (!counts) return;
    if (const optional<unsigned> place = place_of(launch.stream())) {
      counter_.stream = *place;
      return;
    }
    zero_ = scratch(model, 1);
    torch::stable::zero_(*zero_);
    counter_.own = reinterpret_cast<unsigned*>(mutable_data<float>(*zero_));
  }

  Counter get() const { return counter_; }

 private:
  optional<Tensor> zero_;
  Counter counter_{};
};

}  // namespace daqakd::cuda
