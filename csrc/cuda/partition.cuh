#pragma once

#include <algorithm>
#include <numeric>

#include "../common/layout.h"
#include "launch.cuh"
#include "reduce.cuh"

namespace daqakd::cuda {

// Work is cut by shape alone, so sums have one order on any GPU.
constexpr int kThreads = 256;
constexpr int kTile = 8192;     // elements of a channel that make one partial sum
constexpr int kNarrow = 32;     // runs of a channel shorter than this are walked as columns
constexpr int kLanes = 32;      // threads across a tile of columns
constexpr int kTileRows = 128;  // rows of a tile of columns
constexpr int kMinWidth = 512;  // narrower matrices are widened to about this

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline bool is_narrow(const View& view) { return view.channels > 1 && view.inner < kNarrow; }

// One block owns one tile of one channel: a segment of a long run, or several whole short runs.
struct Runs {
  explicit Runs(const View& view)
      : channels(view.channels),
        inner(view.inner),
        outer(view.outer),
        segments(ceil_div(view.inner, kTile)),
        runs(segments > 1 ? 1 : std::min(view.outer, kTile / view.inner)) {}

  int64_t down() const { return ceil_div(outer, runs); }
  __host__ __device__ int64_t across() const { return channels * segments; }
  int64_t blocks() const { return down() * across(); }
  bool has_groups() const { return runs > 1; }
  Reduction reduction() const { return {down(), across(), 1, channels, segments}; }

  int64_t channels, inner, outer, segments, runs;
};

// The tile of this block. With kGroups its runs lie channels * inner elements apart.
template <bool kGroups>
struct Tile {
  __device__ explicit Tile(const Runs& plan)
      : inner(int(plan.inner)), run_stride(plan.channels * plan.inner) {
    const unsigned across = unsigned(plan.across()), segments = unsigned(plan.segments);
    const unsigned row = blockIdx.x / across, column = blockIdx.x % across;
    const int64_t offset = int64_t(column % segments) * kTile;
    channel = column / segments;
    start = (row * plan.runs * plan.channels + channel) * plan.inner + offset;
    count = kGroups ? int(min(plan.runs, plan.outer - row * plan.runs)) * inner
                    : int(min(int64_t(kTile), plan.inner - offset));
  }

  // Where element i of the tile lies.
  __device__ __forceinline__ int64_t at(int i) const {
    return kGroups ? start + i / inner * run_stride + i % inner : start + i;
  }

  int inner, count;
  int64_t run_stride, channel, start;
};

// Memory as a matrix whose width is a multiple of channels * inner and of V, so that a column has
// one channel; a thread owns V columns of kTileRows rows.
template <int V>
struct Columns {
  explicit Columns(const View& view)
      : channels(view.channels), inner(view.inner), numel(view.numel()) {
    const int64_t period = channels * inner, step = V / std::gcd(period, int64_t(V));
    copies = ceil_div(std::max<int64_t>(1, kMinWidth / period), step) * step;
    width = period * copies;
    rows = ceil_div(numel, width);
    tiles = ceil_div(width, kLanes * V);
  }

  int64_t down() const { return ceil_div(rows, kTileRows); }
  int64_t blocks() const { return down() * tiles; }
  Reduction reduction() const { return {down(), width, copies, channels, inner}; }

  // The parameter of each of V neighbouring columns, as a P.
  template <class P>
  __device__ __forceinline__ void spread(
      const float* __restrict__ parameter, int64_t column, P (&out)[V]) const {  // [channels]
    int64_t channel = column / inner % channels, within = column % inner;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      out[i] = P(parameter[channel]);
      if (++within == inner) {
        within = 0;
        channel = channel + 1 == channels ? 0 : channel + 1;
      }
    }
  }

  int64_t channels, inner, numel, copies, width, rows, tiles;
};

// Runs take 16-byte accesses where every run starts on a 16-byte address; columns always can.
template <class T>
bool can_vectorize(const View& view, std::initializer_list<const void*> addresses) {
  const bool starts = view.outer * view.channels == 1 || view.inner % kVector<T> == 0;
  return aligned(addresses) && (starts || is_narrow(view));
}

}  // namespace daqakd::cuda
