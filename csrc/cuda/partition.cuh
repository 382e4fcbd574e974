#pragma once

#include <algorithm>
#include <numeric>

#include "../common/layout.h"
#include "launch.cuh"
#include "reduce.cuh"

namespace daqakd::cuda {

// Work is cut by shape alone, so sums have one order on any GPU.
constexpr int kThreads = 256;
constexpr int kNarrow = 32;     // runs of a channel shorter than this are walked as columns
constexpr int kLanes = 32;      // threads across a tile of columns
constexpr int kTileRows = 128;  // rows of a tile of columns
constexpr int kMinWidth = 512;  // narrower matrices are widened to about this

__host__ __device__ constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
inline bool is_narrow(const View& view) { return view.channels > 1 && view.inner < kNarrow; }
// Whether sums walk columns; a single image has runs alone.
inline bool has_columns(const View& view) { return is_narrow(view) && view.outer > 1; }

// Elements of a channel that make one partial sum: the smallest tile with at most 1,024 of them,
// which a block adds up at 4 a thread, or the largest. So there are at least 512 blocks from 2^20
// elements on; an H100 holds 528 of backward's at a time.
constexpr int kSmallTile = 2048, kLargeTile = 8192, kMostPartials = 1024;
__host__ __device__ constexpr int tile_of(int64_t numel) {
  int tile = kSmallTile;
  while (tile < kLargeTile && numel > int64_t(kMostPartials) * tile) tile *= 2;
  return tile;
}

// One block owns one tile of one channel: a segment of a long run, or several whole short runs. An
// empty run has one segment, of no elements.
struct Runs {
  __host__ __device__ Runs(int64_t outer, int64_t channels, int64_t inner)
      : channels(channels),
        inner(inner),
        outer(outer),
        tile(tile_of(outer * channels * inner)),
        segments(inner <= tile ? 1 : ceil_div(inner, tile)),
        runs(
            outer == 1 || segments > 1 ? 1
            : tile / inner < outer     ? tile / inner
                                       : outer) {}
  explicit Runs(const View& view) : Runs(view.outer, view.channels, view.inner) {}

  int64_t down() const { return ceil_div(outer, runs); }
  __host__ __device__ int64_t across() const { return channels * segments; }
  int64_t blocks() const { return down() * across(); }
  bool has_groups() const { return runs > 1; }
  Reduction reduction() const { return {down(), across(), 1, channels, segments}; }

  int64_t channels, inner, outer, tile, segments, runs;
};

// The tile of a block. Only with kGroups it may have several runs, channels * inner elements apart.
template <bool kGroups>
struct Tile {
  __device__ Tile(const Runs& plan, unsigned block)
      : inner(int(min(plan.inner, plan.tile))),
        reciprocal(1.0f / float(inner)),
        run_stride(plan.channels * plan.inner) {
    const unsigned across = unsigned(plan.across()), segments = unsigned(plan.segments);
    const unsigned row = block / across, column = block % across;
    const int64_t offset = int64_t(column % segments) * plan.tile;
    channel = column / segments;
    start = (row * plan.runs * plan.channels + channel) * plan.inner + offset;
    count = kGroups && segments == 1 ? int(min(plan.runs, plan.outer - row * plan.runs)) * inner
                                     : int(min(plan.tile, plan.inner - offset));
  }

  // Where element i of the tile lies. Half an element keeps the quotient off the integers by more
  // than it rounds, for a tile has at most 2^13 elements.
  __device__ __forceinline__ int64_t at(int i) const {
    if (!kGroups) return start + i;
    const int run = int((float(i) + 0.5f) * reciprocal);
    return start + run * run_stride + (i - run * inner);
  }

  int inner, count;
  float reciprocal;
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

  __host__ __device__ int64_t down() const { return ceil_div(rows, kTileRows); }
  int64_t blocks() const { return down() * tiles; }
  Reduction reduction() const { return {down(), width, copies, channels, inner}; }

  // What op prepares for each of V neighbouring columns.
  template <class Op, class P>
  __device__ __forceinline__ void prepare(const Op& op, int64_t column, P (&out)[V]) const {
    int64_t channel = column / inner % channels, within = column % inner;
#pragma unroll
    for (int i = 0; i < V; ++i) {
      out[i] = op.prepare(channel);
      if (++within == inner) {
        within = 0;
        channel = channel + 1 == channels ? 0 : channel + 1;
      }
    }
  }

  int64_t channels, inner, numel, copies, width, rows, tiles;
};

// Whether every run starts at a multiple of 16 bytes from the first.
template <class T>
__host__ __device__ constexpr bool has_whole_packs(int64_t runs, int64_t inner) {
  return runs == 1 || inner % kVector<T> == 0;
}

// Runs take 16-byte accesses where every run starts on a 16-byte address; columns always can.
template <class T>
bool can_vectorize(const View& view, std::initializer_list<const void*> addresses) {
  const bool whole = has_whole_packs<T>(view.outer * view.channels, view.inner);
  return aligned(addresses) && (whole || is_narrow(view));
}

}  // namespace daqakd::cuda
