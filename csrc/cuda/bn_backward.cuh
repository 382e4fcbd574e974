#pragma once

#include "bn_channels.cuh"

// Backward of bn_act_quant: sums of each channel, then the gradients of its elements.
namespace daqakd::cuda {

template <class T>
struct NormGradients {
  const T *grad, *grad_activation, *x, *residual;  // all but x: null without
  T *dx, *dresidual;                               // dresidual: null where nobody wants it
  bool aligned;
};

// What the gradients of W neighbours follow from.
template <class T, int W>
struct NormInputs {
  __device__ __forceinline__ void read(const NormGradients<T>& all, int64_t at, int64_t left) {
    x = load_pack<W>(all.x + at, left, all.aligned);
    residual = read_one(all.residual, at, left, all.aligned);
    grad = read_one(all.grad, at, left, all.aligned);
    grad_activation = read_one(all.grad_activation, at, left, all.aligned);
  }
  __device__ __forceinline__ static Pack<T, W> read_one(
      const T* from, int64_t at, int64_t left, bool aligned) {
    if (!from) return {};
    return load_pack<W>(from + at, left, aligned);
  }

  // Of element i: its gradient in front of the norm, and what it adds to the quantizer's sums.
  template <class Q>
  __device__ __forceinline__ auto gradient(
      int i, const Norm<float>& norm, const ActivationRange<float>& range, const Q& q) const {
    const float u = norm.value(centred(i, norm)) + load(residual.value[i]);
    auto one = q.gradient(load(grad.value[i]), range.value(u));
    one.dx = range.gradient(one.dx + load(grad_activation.value[i]), u);
    return one;
  }
  __device__ __forceinline__ float centred(int i, const Norm<float>& norm) const {
    return load(x.value[i]) - norm.mean;
  }

  Pack<T, W> x, residual, grad, grad_activation;
};

// One block: one tile of one channel; its sums of du, of du * (x - mean), and the quantizer's.
template <class T, int W, class Q>
__global__ void __launch_bounds__(kThreads, W == 8 ? 2 : kBlocks) bn_backward_runs(
    NormGradients<T> all, NormSource norms, ActivationRange<float> range, Q quantizer, Runs plan,
    float* __restrict__ partials) {  // [2 + kSums, down, channels, segments]
  constexpr int kStride = kThreads * W, kBatch = W == 1 ? 4 : kNormBatch;
  const Tile<true> tile(plan, blockIdx.x);
  const auto q = quantizer.read();
  const Norm<float> norm = norms.prepare(tile.channel);
  float sums[2 + Q::kSums] = {};
  for (int base = threadIdx.x * W; base < tile.count; base += kBatch * kStride) {
    NormInputs<T, W> inputs[kBatch];
#pragma unroll
    for (int k = 0; k < kBatch; ++k) {
      const int i = base + k * kStride;
      if (i < tile.count) inputs[k].read(all, tile.at(i), tile.count - i);
    }
#pragma unroll
    for (int k = 0; k < kBatch; ++k)
#pragma unroll
      for (int i = 0; i < W; ++i) {
        if (base + k * kStride + i >= tile.count) continue;
        const auto one = inputs[k].gradient(i, norm, range, q);
        sums[0] += one.dx;
        sums[1] += one.dx * inputs[k].centred(i, norm);
#pragma unroll
        for (int s = 0; s < Q::kSums; ++s) sums[2 + s] += one.sums[s];
      }
  }
  block_sums<kThreads>(sums);
  if (threadIdx.x != 0) return;
#pragma unroll
  for (int s = 0; s < 2 + Q::kSums; ++s) partials[s * int64_t(gridDim.x) + blockIdx.x] = sums[s];
}

// One thread: W columns of kTileRows / 8 rows; the block adds its 8 rows of threads in order, and
// the quantizer's sums of all.
template <class T, class Q>
__global__ void __launch_bounds__(kThreads, 2) bn_backward_columns(
    NormGradients<T> all, NormSource norms, ActivationRange<float> range, Q quantizer,
    Columns<kVector<T>> plan,
    float* __restrict__ partials,      // [2, down, width]
    float* __restrict__ quantizers) {  // [kSums, blocks]
  constexpr int W = kVector<T>, kRows = kThreads / kLanes;
  __shared__ float lines[2][kRows][kLanes * W];
  const int lane = threadIdx.x % kLanes, line = threadIdx.x / kLanes;
  const unsigned across = unsigned(plan.tiles), tile = blockIdx.x / across;
  const int64_t left_edge = int64_t(blockIdx.x % across) * kLanes * W;
  const int64_t column = left_edge + lane * W, stride = kRows * plan.width;
  int64_t at = (int64_t(tile) * kTileRows + line) * plan.width + column;
  const int64_t end = column < plan.width ? plan.numel : 0;
  const auto q = quantizer.read();
  Norm<float> norm[W];
  plan.prepare(norms, column, norm);
  float sums[2][W] = {}, others[Q::kSums + 1] = {};
#pragma unroll 1
  for (int row = 0; row < kTileRows / kRows; row += kNormBatch) {
    NormInputs<T, W> inputs[kNormBatch];
    int left[kNormBatch];
#pragma unroll
    for (int k = 0; k < kNormBatch; ++k, at += stride) {
      left[k] = int(max(min(end - at, int64_t(W)), int64_t(0)));
      if (left[k] > 0) inputs[k].read(all, at, left[k]);
    }
#pragma unroll
    for (int k = 0; k < kNormBatch; ++k)
#pragma unroll
      for (int i = 0; i < W; ++i) {
        if (i >= left[k]) continue;
        const auto one = inputs[k].gradient(i, norm[i], range, q);
        sums[0][i] += one.dx;
        sums[1][i] += one.dx * inputs[k].centred(i, norm[i]);
#pragma unroll
        for (int s = 0; s < Q::kSums; ++s) others[s] += one.sums[s];
      }
  }
#pragma unroll
  for (int i = 0; i < W; ++i) {
    lines[0][line][lane * W + i] = sums[0][i];
    lines[1][line][lane * W + i] = sums[1][i];
  }
  if constexpr (Q::kSums > 0) block_sums<kThreads>(others);
  __syncthreads();
  const int64_t plane = plan.down() * plan.width, own = left_edge + threadIdx.x;
  if (threadIdx.x < kLanes * W && own < plan.width)
    for (int s = 0; s < 2; ++s)
      partials[s * plane + tile * plan.width + own] = add_lines(lines[s], threadIdx.x);
  if (threadIdx.x == 0)
    for (int s = 0; s < Q::kSums; ++s) quantizers[s * int64_t(gridDim.x) + blockIdx.x] = others[s];
}

// What is made of a channel's sums.
struct GradientMaker {
  __device__ void make(int64_t channel, double bias, double centred) const {
    const double invstd = norms.statistics[channels + channel];
    dnorm[channel] = float(centred * invstd);
    dnorm[channels + channel] = float(bias);
    const Norm<float> norm = norms.prepare(channel);
    const NormGradient<float> gradient = training
                                             ? NormGradient<float>(bias, centred, invstd, count)
                                             : NormGradient<float>(0, 0, 0, 1);
    const float values[5] = {norm.mean, norm.factor, norm.shift, gradient.mean, gradient.slope};
    for (int k = 0; k < 5; ++k) table[k * channels + channel] = values[k];
  }

  NormSource norms;
  bool training;
  double count;  // elements of a channel
  int64_t channels;
  float* dnorm;  // [2, C]: dweight, dbias
  float* table;  // [5, C]: mean, factor, shift of the norm; mean, slope of its gradient
};

// The quantizer's sums over all elements.
struct QuantizerSums {
  __device__ void write(int64_t s, double total) const {
    if (s == 0) *out[0] = float(total * scale);
    if (s == 1) *out[1] = float(total);
  }

  const float* partials;  // [kSums, blocks]
  int64_t blocks;
  float* out[2];  // [] each
  double scale;   // of the first
};

// One block: one channel, or beyond the channels a sum of the quantizer.
static __global__ void __launch_bounds__(kReduceThreads) bn_gradient_kernel(
    const float* __restrict__ partials,  // [2, plane]
    Reduction shape, int64_t plane, GradientMaker maker, QuantizerSums sums) {
  const int64_t channel = blockIdx.x;
  if (channel >= maker.channels) {
    const int64_t s = channel - maker.channels;
    const double total =
        block_total(sums.blocks, [&](int64_t i) { return sums.partials[s * sums.blocks + i]; });
    if (threadIdx.x == 0) sums.write(s, total);
    return;
  }
  const auto total = [&](const float* from) {
    return block_total(shape.terms(), [&](int64_t i) { return from[shape.at(channel, i)]; });
  };
  const double bias = total(partials);
  __syncthreads();
  const double centred = total(partials + plane);
  if (threadIdx.x == 0) maker.make(channel, bias, centred);
}

// One thread: kNormBatch packs, cut regardless of channels; du is made again.
template <class T, class Q>
__global__ void __launch_bounds__(kThreads, 2) bn_backward_kernel(
    NormGradients<T> all, int64_t numel, ChannelTable table, ActivationRange<float> range,
    Q quantizer) {
  constexpr int W = kVector<T>, kStride = kThreads * W;
  const int64_t base = int64_t(blockIdx.x) * (kNormBatch * kStride) + threadIdx.x * W;
  NormInputs<T, W> inputs[kNormBatch];
#pragma unroll
  for (int k = 0; k < kNormBatch; ++k) {
    const int64_t at = base + k * kStride;
    if (at < numel) inputs[k].read(all, at, numel - at);
  }
  const auto q = quantizer.read();
  ChannelCursor cursor = table.start(base);
#pragma unroll
  for (int k = 0; k < kNormBatch; ++k) {
    const int64_t at = base + k * kStride, left = numel - at;
    if (left <= 0) return;
    float values[5][W];  // mean, factor, shift of the norm; mean, slope of its gradient
    table.read(cursor, values);
    table.advance(cursor);
    Pack<T, W> dx, dresidual;
#pragma unroll
    for (int i = 0; i < W; ++i) {
      Norm<float> norm;
      NormGradient<float> gradient;
      norm.mean = values[0][i], norm.factor = values[1][i], norm.shift = values[2][i];
      gradient.mean = values[3][i], gradient.slope = values[4][i];
      const float du = inputs[k].gradient(i, norm, range, q).dx;
      dresidual.value[i] = store<T>(du);
      dx.value[i] = store<T>(gradient.value(du, inputs[k].centred(i, norm), norm));
    }
    if (all.dresidual) store_pack<W>(all.dresidual + at, dresidual, left, all.aligned);
    store_pack<W>(all.dx + at, dx, left, all.aligned);
  }
}

}  // namespace daqakd::cuda
