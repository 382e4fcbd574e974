#pragma once

#include "bn_channels.cuh"
#include "codes.cuh"

namespace daqakd::cuda {

template <class T>
struct ForwardTensors {
  const T *x, *residual;  // residual: null without
  T *y, *activation;      // activation: null where nobody reads it
  uint8_t* codes;         // null where nobody reads them
  bool aligned;
};

// Whether a thread's neighbours fill bytes of the codes, so that no two threads share one.
template <class T>
constexpr bool has_whole_bytes(int slot) {
  return kVector<T> * slot % 8 == 0;
}

// One thread: kNormBatch packs, cut regardless of channels. With kCodes it packs what it stores.
template <class T, class Q, bool kCodes>
__global__ void __launch_bounds__(kThreads, kBlocks) bn_forward_kernel(
    ForwardTensors<T> all, int64_t numel, ChannelTable norms, ActivationRange<float> range,
    Q quantizer, DeviceCodes codes) {
  constexpr int W = kVector<T>, kStride = kThreads * W;
  const int64_t base = int64_t(blockIdx.x) * (kNormBatch * kStride) + threadIdx.x * W;
  Pack<T, W> x[kNormBatch], residual[kNormBatch] = {};
#pragma unroll
  for (int k = 0; k < kNormBatch; ++k) {
    const int64_t at = base + k * kStride, left = numel - at;
    if (left <= 0) break;
    x[k] = load_pack<W>(all.x + at, left, all.aligned);
    if (all.residual) residual[k] = load_pack<W>(all.residual + at, left, all.aligned);
  }
  const auto q = quantizer.read();
  ChannelCursor cursor = norms.start(base);
  const CodeSlots slots = codes.slots();
#pragma unroll
  for (int k = 0; k < kNormBatch; ++k) {
    const int64_t at = base + k * kStride, left = numel - at;
    if (left <= 0) return;
    float norm[3][W];  // mean, factor, shift
    norms.read(cursor, norm);
    norms.advance(cursor);
    Pack<T, W> activation;
#pragma unroll
    for (int i = 0; i < W; ++i) {
      float u = (load(x[k].value[i]) - norm[0][i]) * norm[1][i] + norm[2][i];
      if (all.residual) u += load(residual[k].value[i]);
      u = range.value(u);
      activation.value[i] = store<T>(u);
      x[k].value[i] = store<T>(q.value(u));
    }
    if (all.activation) store_pack<W>(all.activation + at, activation, left, all.aligned);
    store_pack<W>(all.y + at, x[k], left, all.aligned);
    if constexpr (kCodes) {
      const uint64_t found = slots.of<T, W>(x[k].value, left);
      store_slots<W>(all.codes + at * slots.slot / 8, found, slots.slot, left);
    }
  }
}

}  // namespace daqakd::cuda
