#pragma once

#include "../common/labels.h"
#include "../formulas/cmi.h"
#include "launch.cuh"

// Rows of logits, each read once: a sub-warp holds a row or goes over it tile after tile.
namespace daqakd::cuda {

constexpr int kRowThreads = 256;

// What the rows of a launch have in common.
template <class T>
struct LogitRows {
  const T* logits;  // [B, C]
  int64_t count, classes;
  Labels labels;
};

// Neighbouring lanes that hold one row. They add as a full warp does whose other lanes hold 0.
template <int kLanes>
struct SubWarp {
  __device__ SubWarp() : lane(threadIdx.x % kLanes) {}

  template <class V>
  __device__ __forceinline__ V from(V value, int other) const {
    return __shfl_sync(mask(), value, other, kLanes);
  }
  template <class V>
  __device__ __forceinline__ V sum(V value) const {
#pragma unroll
    for (int width = kLanes / 2; width > 0; width /= 2)
      value += __shfl_xor_sync(mask(), value, width, kLanes);
    return value;
  }
  template <class V, class Better>
  __device__ __forceinline__ V best(V value, const Better& better) const {
#pragma unroll
    for (int width = kLanes / 2; width > 0; width /= 2) {
      const V other = __shfl_xor_sync(mask(), value, width, kLanes);
      value = better(other, value) ? other : value;
    }
    return value;
  }
  __device__ __forceinline__ unsigned mask() const {
    if constexpr (kLanes == 32) return 0xffffffffu;
    return ((1u << kLanes % 32) - 1) << (threadIdx.x % 32 / kLanes * kLanes);
  }

  int lane;
};

// One row, kItems classes of each lane at a time: all of them when kItems * kLanes classes suffice,
// which then stay in registers, else tile after tile.
template <class T, int kLanes, int kItems, bool kWhole>
struct LogitRow {
  static constexpr int kTile = kLanes * kItems;

  __device__ LogitRow(const LogitRows<T>& rows, int64_t index, int lane)
      : z(rows.logits + index * rows.classes), classes(rows.classes), lane(lane) {
    if constexpr (kWhole) fill(0);
  }

  __device__ __forceinline__ void fill(int64_t first) {
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int64_t k = first + j * kLanes + lane;
      if (k < classes) values[j] = z[k];
    }
  }

  // body(class, logit in double, item) for the tile of this lane that starts at `first`.
  template <class F>
  __device__ __forceinline__ void each(int64_t first, const F& body) {
    if constexpr (!kWhole) fill(first);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int64_t k = first + j * kLanes + lane;
      if (k < classes) body(k, double(load(values[j])), j);
    }
  }

  // body(first class of a tile); one tile is no loop.
  template <class F>
  __device__ __forceinline__ void tiles(const F& body) {
    if constexpr (kWhole) return body(int64_t(0));
    for (int64_t first = 0; first < classes; first += kTile) body(first);
  }

  __device__ __forceinline__ CMIRow summary(const SubWarp<kLanes>& warp) {
    double peak = -INFINITY, terms = 0, others = 0;
    tiles([&](int64_t first) {
      each(first, [&](int64_t, double value, int) { peak = value > peak ? value : peak; });
    });
    peak = warp.best(peak, [](double a, double b) { return a > b; });
    int64_t at = classes, peaks = 0;
    tiles([&](int64_t first) {
      each(first, [&](int64_t k, double value, int) {
        const double weight = exp64(value - peak);
        terms += cmi_term(weight, value - peak);
        others += value == peak ? 0.0 : weight;
        peaks += value == peak;
        at = value == peak && k < at ? k : at;
      });
    });
    at = warp.best(at, [](int64_t a, int64_t b) { return a < b; });
    const double rest = warp.sum(others) + double(warp.sum(peaks) - 1);
    return CMIRow(peak, at, rest, warp.sum(terms));
  }

  const T* z;  // [C]
  int64_t classes;
  int lane;
  T values[kItems];
};

// Calls body(label, label_weight) for every class a row belongs to; all its lanes take part.
template <int kLanes, class F>
__device__ __forceinline__ void each_soft(
    const double* label_weights, int64_t classes, const SubWarp<kLanes>& warp,
    const F& body) {  // [C]
  for (int64_t first = 0; first < classes; first += kLanes) {
    const double own = first + warp.lane < classes ? label_weights[first + warp.lane] : 0.0;
    for (int j = 0; j < kLanes; ++j) {
      const double label_weight = warp.from(own, j);
      if (label_weight != 0.0) body(first + j, label_weight);
    }
  }
}

template <int kLanes_, int kItems_, bool kWhole_>
struct RowConfig {
  static constexpr int kLanes = kLanes_, kItems = kItems_;
  static constexpr bool kWhole = kWhole_;
};

// Calls body(config, blocks) with the config for so many classes.
template <class F>
void by_classes(int64_t classes, int64_t rows, const F& body) {
  const auto blocks = [&](int lanes) { return (rows * lanes + kRowThreads - 1) / kRowThreads; };
  if (classes <= 16) return body(RowConfig<16, 1, true>(), blocks(16));
  if (classes <= 128) return body(RowConfig<32, 4, true>(), blocks(32));
  if (classes <= 1024) return body(RowConfig<32, 32, true>(), blocks(32));
  body(RowConfig<32, 8, false>(), blocks(32));
}

}  // namespace daqakd::cuda
