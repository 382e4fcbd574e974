#pragma once

#include <cfloat>

#include "../formulas/kd_loss.h"
#include "counter.cuh"
#include "reduce.cuh"
#include "scalar.cuh"

// The loss of rows of logits, and its gradient. A row belongs to G neighbouring threads of a block.
namespace daqakd::cuda {

constexpr int kRowThreads = 256;
constexpr int kLongThreads = 256, kLongFragment = 16;  // a thread holds 16 elements of a long row

template <class T>
struct Batch {
  const T *student, *teacher;  // [B, C]
  T* grad;                     // [B, C], or null
  int64_t rows, classes, ignore;
  Scalar temperature, ce_weight, kd_weight;
  float smoothing;
  bool mean, unreduced;
  const int64_t* labels;   // [B], or null
  const float* weights;    // [B, C], or null
  const unsigned* counts;  // [counted]: rows that are not ignored, null to count them here
  int64_t counted;
  const float* upstream;          // multiplies grad: [B] or []; null for 1
  float scale;                    // of upstream
  float *loss, *parts, *ce, *kl;  // loss: null in backward
  double* partials;               // [blocks, 2]
  Counter counter;

  __device__ bool counts_rows() const { return mean && labels; }
  __device__ KDSettings<float> settings() const {
    return {temperature.value(), ce_weight.value(), kd_weight.value()};
  }
};

struct Sum {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct Largest {
  __device__ float operator()(float a, float b) const { return a > b ? a : b; }
};

// Combines each of K values over G neighbouring threads, for all of them, always in one order.
template <int G, class F, int K>
__device__ __forceinline__ void combine(float (&values)[K], const F& op) {
#pragma unroll
  for (int offset = min(G, 32) / 2; offset > 0; offset /= 2)
#pragma unroll
    for (int k = 0; k < K; ++k)
      values[k] = op(values[k], __shfl_xor_sync(0xffffffffu, values[k], offset));
  if constexpr (G > 32) {
    __shared__ float warps[K][G / 32];
    if (threadIdx.x % 32 == 0)
#pragma unroll
      for (int k = 0; k < K; ++k) warps[k][threadIdx.x / 32] = values[k];
    __syncthreads();
#pragma unroll
    for (int k = 0; k < K; ++k) {
      values[k] = warps[k][0];
#pragma unroll
      for (int warp = 1; warp < G / 32; ++warp) values[k] = op(values[k], warps[k][warp]);
    }
  }
}

// Rows of the mean of the cross-entropy, at least 1. Integers: any order gives the same count.
template <int Threads, class T>
__device__ __forceinline__ float count_rows(const Batch<T>& batch) {
  if (!batch.counts_rows()) return float(batch.rows);
  __shared__ unsigned long long total;
  unsigned found = 0;
  if (threadIdx.x == 0) total = 0;
  __syncthreads();
  if (batch.counts)
    for (int64_t i = threadIdx.x; i < batch.counted; i += Threads) found += batch.counts[i];
  else
    for (int64_t i = threadIdx.x; i < batch.rows; i += Threads)
      found += batch.labels[i] != batch.ignore;
  atomicAdd(&total, static_cast<unsigned long long>(found));
  __syncthreads();
  return total > 0 ? float(total) : 1.0f;
}

// Adds the rows of this block; the last block to be done adds all blocks, always in one order.
template <int Threads, class T>
__device__ __forceinline__ void reduce_loss(
    const Batch<T>& batch, float ce, float kl, float count) {
  double sums[2] = {ce, kl};
  block_sums<Threads>(sums);
  if (threadIdx.x == 0) {
    batch.partials[2 * int64_t(blockIdx.x)] = sums[0];
    batch.partials[2 * int64_t(blockIdx.x) + 1] = sums[1];
  }
  if (!batch.counter.is_last()) return;
  sums[0] = sums[1] = 0;
  for (int64_t i = threadIdx.x; i < gridDim.x; i += Threads)
    for (int k = 0; k < 2; ++k) sums[k] += __ldcg(batch.partials + 2 * i + k);
  block_sums<Threads>(sums);
  if (threadIdx.x != 0) return;
  batch.parts[0] = float(batch.mean ? sums[0] / count : sums[0]);
  batch.parts[1] = float(batch.mean ? sums[1] / double(batch.rows) : sums[1]);
  *batch.loss = kd_loss_of(batch.parts[0], batch.parts[1], batch.settings());
}

// A row's target: class k weighs (w[k], or 1 for the label) * keep + uniform; NaN for a label that
// is no class, 0 for an ignored row.
struct RowTarget {
  template <class T>
  __device__ RowTarget(const Batch<T>& batch, int64_t row) : weights(nullptr), y(-1) {
    if (row >= batch.rows || !(batch.labels || batch.weights)) return;
    if (batch.weights)
      weights = batch.weights + row * batch.classes;
    else if ((y = batch.labels[row]) == batch.ignore)
      return;
    keep = 1 - batch.smoothing;
    uniform = batch.smoothing / float(batch.classes);
    if (!weights && (y < 0 || y >= batch.classes)) uniform = NAN;
  }
  __device__ __forceinline__ float at(int64_t k) const {
    return (weights ? weights[k] * keep : k == y ? keep : 0.0f) + uniform;
  }

  const float* weights;
  int64_t y;
  float keep = 0, uniform = 0;
};

// What a thread holds of a row: N elements, V neighbours at a time, the G threads side by side.
template <int V, int G, int N>
struct RowFragment {
  __device__ RowFragment(int64_t classes, int64_t first) : classes(classes), first(first) {}

  // body(i, k): element i of the thread is class k. Whole steps beyond the row are skipped.
  template <class F>
  __device__ __forceinline__ void each(const F& body) const {
#pragma unroll
    for (int j = 0; j < N / V; ++j) {
      if (first + j * G * V >= classes) break;
#pragma unroll
      for (int i = 0; i < V; ++i) body(j * V + i, class_of(j) + i);
    }
  }

  // Classes beyond the row read as -inf.
  template <class T>
  __device__ __forceinline__ void load_row(const T* row, float (&out)[N]) const {
#pragma unroll
    for (int i = 0; i < N; ++i) out[i] = -INFINITY;
    read(row, [&](int i, float value) { out[i] = value; });
  }

  // body(i, value): element i of the thread, of a row that no array of registers keeps.
  template <class T, class F>
  __device__ __forceinline__ void read(const T* row, const F& body) const {
#pragma unroll
    for (int j = 0; j < N / V; ++j) {
      if (class_of(j) >= classes) break;
      const Pack<T, V> pack = load_pack<V>(row + class_of(j));
#pragma unroll
      for (int i = 0; i < V; ++i) body(j * V + i, load(pack.value[i]));
    }
  }

  template <class T>
  __device__ __forceinline__ void store_row(T* row, const float (&values)[N]) const {
#pragma unroll
    for (int j = 0; j < N / V; ++j) {
      if (class_of(j) >= classes) break;
      Pack<T, V> pack;
#pragma unroll
      for (int i = 0; i < V; ++i) pack.value[i] = store<T>(values[j * V + i]);
      store_pack<V>(row + class_of(j), pack);
    }
  }

  __device__ __forceinline__ int64_t class_of(int j) const {
    return first + int64_t(j * G + threadIdx.x % G) * V;
  }

  int64_t classes, first;
};

// The upstream gradient of a row, times the reduction's scale.
template <class T>
__device__ __forceinline__ float upstream_of(const Batch<T>& batch, int64_t row) {
  if (!batch.upstream) return 1;
  return batch.upstream[batch.unreduced ? row : 0] * batch.scale;
}

template <class T>
__device__ __forceinline__ KDRow<float> finish_row(
    const Batch<T>& batch, int64_t row, const float (&sums)[6], float spread, float count,
    bool writes) {
  const KDSettings<float> settings = batch.settings();
  const float ce_scale = batch.mean ? float(batch.rows) / count : 1;
  const KDRow<float> found = kd_row(
      KDSums<float>{sums[0], sums[1], sums[2], sums[3], spread}, KDTarget<float>{sums[4], sums[5]},
      settings.ce_weight * ce_scale, settings);
  if (writes && batch.loss) {
    batch.ce[row] = found.ce;
    batch.kl[row] = found.kl;
    if (batch.unreduced) batch.loss[row] = kd_loss_of(found.ce, found.kl, settings);
  }
  return found;
}

}  // namespace daqakd::cuda
