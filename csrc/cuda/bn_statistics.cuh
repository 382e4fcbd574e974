#pragma once

#include "../common/bits.h"

#include "bn_channels.cuh"
#include "scalar.cuh"

// The statistics of each channel: moments of tiles, which are read once, and what is made of them.
namespace daqakd::cuda {

// Of the elements of a channel in a tile.
struct Moments {
  float count, mean, rest, squares;  // the mean is mean + rest; squares: of deviations from it

  Moments() = default;
  // From the sums of the deviations from `mean`, and of their squares. Infinite means have no rest.
  __device__ Moments(float count, float mean, float deviations, float deviations_squared)
      : count(count), mean(mean), rest(mean - mean == 0 ? deviations / count : 0.0f) {
    squares = deviations_squared - deviations * rest;
    squares = squares < 0 ? 0.0f : squares;
  }
  __device__ double exact() const { return double(mean) + double(rest); }

  __device__ void add(const Moments& other) {
    if (count == 0) return void(*this = other);
    const double a = double(count), b = double(other.count), shift = other.exact() - exact();
    const double all = a + b, sum = (a * exact() + b * other.exact()) / all;
    squares += other.squares + float(shift * shift * (a * b / all));
    count = float(all), mean = float(sum);
    rest = mean - mean == 0 ? float(sum - double(mean)) : 0.0f;
  }

  __device__ static Moments load(const float* partials, int64_t place) {
    return bits_as<Moments>(load_pack<4>(partials + 4 * place));
  }
  __device__ void store(float* partials, int64_t place) const {
    store_pack<4>(partials + 4 * place, bits_as<Pack<float, 4>>(*this));
  }
};

// What is made of a channel's mean and variance.
struct NormMaker {
  __device__ void from_batch(int64_t channel, double mean, double squares) const {
    if (running_mean) {
      note(running_mean[channel], mean);
      note(running_var[channel], squares / (count > 1 ? count - 1 : 1));
    }
    make(channel, mean, squares / count);
  }
  __device__ void from_running(int64_t channel) const {
    make(channel, running_mean[channel], running_var[channel]);
  }

  __device__ void make(int64_t channel, double mean, double var) const {
    statistics[channel] = float(mean);
    statistics[channels + channel] = float(1 / sqrt(var + eps));
    const Norm<float> norm = NormSource{statistics, weight, bias, channels}.prepare(channel);
    norms[channel] = norm.mean;
    norms[channels + channel] = norm.factor;
    norms[2 * channels + channel] = norm.shift;
  }
  __device__ void note(float& running, double value) const {
    const double share = momentum.value();
    running = float((1 - share) * double(running) + share * value);
  }

  const float *weight, *bias;         // [C] or null
  float *running_mean, *running_var;  // [C] or null
  Scalar momentum;
  double eps, count;  // count: elements of a channel
  int64_t channels;
  float* statistics;  // [2, C]: mean, 1 / standard deviation
  float* norms;       // [3, C]: mean, factor, shift
};

// One block: one tile of one channel, which its threads hold. Without partials the tile is all of
// the channel.
template <class T, int W>
__global__ void __launch_bounds__(kThreads) bn_moments_runs(
    const T* __restrict__ x,  // [numel]
    float* partials,          // [down, channels, segments, 4] or null
    Runs plan, bool aligned, NormMaker maker) {
  constexpr int kStride = kThreads * W, kHeld = kLargeTile / kStride;
  const Tile<true> tile(plan, blockIdx.x);
  Pack<T, W> held[kHeld];
#pragma unroll
  for (int k = 0; k < kHeld; ++k) {
    const int i = threadIdx.x * W + k * kStride;
    if (i < tile.count) held[k] = load_pack<W>(x + tile.at(i), tile.count - i, aligned);
  }
  const auto each = [&](const auto& body) {
#pragma unroll
    for (int k = 0; k < kHeld; ++k) {
      const int left = tile.count - int(threadIdx.x * W + k * kStride);
#pragma unroll
      for (int i = 0; i < W; ++i)
        if (i < left) body(load(held[k].value[i]));
    }
  };
  float sum = 0, sums[2] = {};
  each([&](float value) { sum += value; });
  const float mean = block_sum<kThreads>(sum) / float(tile.count);
  each([&](float value) {
    sums[0] += value - mean;
    sums[1] += (value - mean) * (value - mean);
  });
  block_sums<kThreads>(sums);
  if (threadIdx.x != 0) return;
  const Moments found(float(tile.count), mean, sums[0], sums[1]);
  if (partials)
    found.store(partials, blockIdx.x);
  else
    maker.from_batch(tile.channel, found.exact(), found.squares);
}

// One thread: W columns of kTileRows / 8 rows, of which it holds kHeld at a time. Without
// partials a column is all of its channel.
template <class T>
__global__ void __launch_bounds__(kThreads, 2) bn_moments_columns(
    const T* __restrict__ x,  // [numel]
    float* partials,          // [down, width, 4] or null
    Columns<kVector<T>> plan, bool aligned, NormMaker maker) {
  constexpr int W = kVector<T>, kRows = kThreads / kLanes, kHeld = W == 8 ? 4 : 16;
  __shared__ float lines[2][kRows][kLanes * W], means[kLanes * W];
  const int lane = threadIdx.x % kLanes, line = threadIdx.x / kLanes, own = threadIdx.x;
  const unsigned across = unsigned(plan.tiles), tile = blockIdx.x / across;
  const int64_t left_edge = int64_t(blockIdx.x % across) * kLanes * W;
  const int64_t column = left_edge + lane * W, stride = kRows * plan.width;
  const bool owns = own < kLanes * W && left_edge + own < plan.width;
  const int64_t column_rows = ceil_div(plan.numel - left_edge - own, plan.width);
  const int rows = int(min(column_rows - int64_t(tile) * kTileRows, int64_t(kTileRows)));
  const int64_t end = column < plan.width ? plan.numel : 0;
  int64_t first = (int64_t(tile) * kTileRows + line) * plan.width + column;
  Moments found = {};
#pragma unroll 1
  for (int top = 0; top < kTileRows; top += kHeld * kRows) {
    const float count = float(max(min(rows - top, kHeld * kRows), 0));
    int packs = 0, last = W;  // how many it holds, and the elements of the last
    Pack<T, W> held[kHeld];
#pragma unroll
    for (int k = 0; k < kHeld; ++k, first += stride) {
      if (first >= end) continue;
      last = int(min(end - first, int64_t(W)));
      held[k] = load_pack<W>(x + first, last, aligned);
      packs = k + 1;
    }
    const auto each = [&](const auto& body) {
#pragma unroll
      for (int k = 0; k < kHeld; ++k)
#pragma unroll
        for (int i = 0; i < W; ++i)
          if (k + 1 < packs || (k + 1 == packs && i < last)) body(i, load(held[k].value[i]));
    };
    float sums[W] = {}, squares[W] = {}, mean[W] = {};
    each([&](int i, float value) { sums[i] += value; });
#pragma unroll
    for (int i = 0; i < W; ++i) lines[0][line][lane * W + i] = sums[i];
    __syncthreads();
    if (owns) means[own] = add_lines(lines[0], own) / count;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < W; ++i) {
      if (packs > 0) mean[i] = means[lane * W + i];
      sums[i] = 0;
    }
    each([&](int i, float value) {
      sums[i] += value - mean[i];
      squares[i] += (value - mean[i]) * (value - mean[i]);
    });
#pragma unroll
    for (int i = 0; i < W; ++i) {
      lines[0][line][lane * W + i] = sums[i];
      lines[1][line][lane * W + i] = squares[i];
    }
    __syncthreads();
    if (owns && count > 0)
      found.add({count, means[own], add_lines(lines[0], own), add_lines(lines[1], own)});
    __syncthreads();
  }
  if (!owns) return;
  if (partials)
    found.store(partials, tile * plan.width + left_edge + own);
  else
    maker.from_batch(left_edge + own, found.exact(), found.squares);
}

// One block: one channel.
static __global__ void __launch_bounds__(kReduceThreads)
    bn_merge_kernel(const float* partials, Reduction shape, NormMaker maker) {
  const int64_t channel = blockIdx.x;
  const auto total = [&](const auto& term) {
    return block_total(shape.terms(), [&](int64_t i) {
      const Moments one = Moments::load(partials, shape.at(channel, i));
      return one.count == 0 ? 0.0 : term(one);
    });
  };
  const double mean =
      total([](const Moments& one) { return double(one.count) * one.exact(); }) / maker.count;
  __syncthreads();
  const double squares = total([&](const Moments& one) {
    const double shift = one.exact() - mean;
    return double(one.squares) + double(one.count) * shift * shift;
  });
  if (threadIdx.x == 0) maker.from_batch(channel, mean, squares);
}

// One thread: one channel.
static __global__ void __launch_bounds__(kThreads) bn_running_kernel(NormMaker maker) {
  const int64_t channel = int64_t(blockIdx.x) * kThreads + threadIdx.x;
  if (channel < maker.channels) maker.from_running(channel);
}

}  // namespace daqakd::cuda
