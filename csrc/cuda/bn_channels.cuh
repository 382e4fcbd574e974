#pragma once

#include "../formulas/bn_act_quant.h"
#include "elementwise.cuh"

// How the kernels of bn_act_quant find what belongs to a channel.
namespace daqakd::cuda {

constexpr int kNormBatch = 2;  // packs in flight per thread and tensor

template <class T>
const T* address(const optional<Tensor>& given) {
  return given ? data<T>(*given) : nullptr;
}

// What `x` has beside it, in its order of memory.
inline optional<Tensor> beside(const optional<Tensor>& given, const Tensor& x) {
  if (!given) return std::nullopt;
  return in_strides_of(*given, x);
}

// The norm of a channel from its statistics.
struct NormSource {
  __device__ Norm<float> prepare(int64_t channel) const {
    return {
        statistics[channel], statistics[channels + channel], weight ? weight[channel] : 1.0f,
        bias ? bias[channel] : 0.0f};
  }

  const float* statistics;     // [2, C]: mean, 1 / standard deviation
  const float *weight, *bias;  // [C] or null
  int64_t channels;
};

// Kinds of values of each channel, and what a thread that moves through memory needs of them.
struct ChannelTable {
  ChannelTable(const float* values, const View& view, int64_t stride)
      : values(values), channels(view.channels), inner(view.inner), step(stride, channels, inner) {}

  __device__ ChannelCursor start(int64_t at) const { return {at, channels, inner}; }
  __device__ __forceinline__ void advance(ChannelCursor& cursor) const {
    cursor.advance(step, channels, inner);
  }

  // Of W neighbours, whose first lies at the cursor and at a multiple of W.
  template <int K, int W>
  __device__ __forceinline__ void read(ChannelCursor cursor, float (&out)[K][W]) const {
    if (W > 1 && inner == 1 && channels > 1 && channels % W == 0)
      return read_packs(values + cursor.channel, out);
    float one[K];
    read_one(cursor.channel, one);
#pragma unroll
    for (int i = 0; i < W; ++i) {
#pragma unroll
      for (int k = 0; k < K; ++k) out[k][i] = one[k];
      if (i + 1 < W && cursor.advance(channels, inner)) read_one(cursor.channel, one);
    }
  }

  template <int K>
  __device__ __forceinline__ void read_one(int64_t channel, float (&one)[K]) const {
#pragma unroll
    for (int k = 0; k < K; ++k) one[k] = values[k * channels + channel];
  }

  template <int K, int W>
  __device__ __forceinline__ void read_packs(const float* from, float (&out)[K][W]) const {
#pragma unroll
    for (int k = 0; k < K; ++k)
#pragma unroll
      for (int i = 0; i < W; i += kVector<float>) {
        const Pack<float, kVector<float>> pack = load_pack<kVector<float>>(from + k * channels + i);
#pragma unroll
        for (int j = 0; j < kVector<float>; ++j) out[k][i + j] = pack.value[j];
      }
  }

  const float* values;  // [K, C]
  int64_t channels, inner;
  ChannelCursor step;  // what a thread moves on by
};

}  // namespace daqakd::cuda
