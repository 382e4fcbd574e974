#pragma once

#include <memory>

#include "../formulas/bn_act_quant.h"
#include "element.h"
#include "partition.h"
#include "simd.h"

// Passes over tensors whose channels depend on sums over themselves.
namespace daqakd::cpu {

// Sums of a block take 16 lanes; what leaves it is double, so many blocks lose nothing.
template <class C>
DAQAKD_INLINE double lane_sum(const C* __restrict__ v, int64_t n) {
  C lanes[kLanes] = {};
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] += v[i + lane];
  for (int64_t i = whole; i < n; ++i) lanes[i - whole] += v[i];
  return double(add_lanes(lanes));
}

// The partial results of a channel, wherever the plan has put them: body(index).
template <class Plan, class F>
void each_partial(const Plan& plan, int64_t channel, const F& body) {
  const int64_t group = plan.group(), channels = plan.view.channels;
  for (int64_t row = 0; row < plan.down(); ++row)
    for (int64_t copy = 0; copy < plan.copies(); ++copy)
      for (int64_t i = 0; i < group; ++i)
        body(row * plan.across() + (copy * channels + channel) * group + i);
}

// collect(task, channel, first, n) for every run, finish(channel) once its runs are collected, then
// apply with the arguments of collect. A channel at a time stays in the cache, where there are
// enough of them for all threads.
template <class A, class F, class B>
void pass_over(const Rows& plan, const A& collect, const F& finish, const B& apply) {
  const int64_t channels = plan.view.channels, inner = plan.view.inner;
  const auto runs = [&](int64_t channel, const auto& body) {
    for (int64_t row = channel; row < plan.view.outer * channels; row += channels)
      for (int64_t part = 0; part < plan.segments; ++part)
        body(
            row * plan.segments + part, channel, row * inner + part * kSegment,
            std::min(kSegment, inner - part * kSegment));
  };
  if (channels >= 4 * int64_t(torch::stable::get_num_threads()))
    return parallel(channels, plan.view.outer * inner, [&](int64_t begin, int64_t end) {
      for (int64_t channel = begin; channel < end; ++channel) {
        runs(channel, collect);
        finish(channel);
        runs(channel, apply);
      }
    });
  plan.each(collect);
  for (int64_t channel = 0; channel < channels; ++channel) finish(channel);
  plan.each(apply);
}

// The same for tiles of columns: collect(tile, left, columns, top, bottom).
template <class A, class F, class B>
void pass_over(const Columns& plan, const A& collect, const F& finish, const B& apply) {
  plan.each(collect);
  for (int64_t channel = 0; channel < plan.view.channels; ++channel) finish(channel);
  plan.each(apply);
}

// Values of every channel, kind after kind.
template <class C>
struct ChannelValues {
  ChannelValues(int64_t kinds, int64_t channels)
      : of(new C[kinds * channels]), channels(channels) {}
  C* operator[](int64_t kind) const { return of.get() + kind * channels; }

  std::unique_ptr<C[]> of;
  int64_t channels;
};

// The norm of element i of a piece: one for all of a run, or one for each column.
template <class C>
struct OneNorm {
  DAQAKD_INLINE const Norm<C>& operator()(int64_t) const { return norm; }
  OneNorm from(int64_t) const { return *this; }
  Norm<C> norm;
};
template <class C>
struct EachNorm {
  DAQAKD_INLINE Norm<C> operator()(int64_t i) const {
    Norm<C> norm;
    norm.mean = mean[i], norm.factor = factor[i], norm.shift = shift[i];
    return norm;
  }
  const C* __restrict__ mean, * __restrict__ factor, * __restrict__ shift;
};

template <class C>
struct Norms : ChannelValues<C> {
  explicit Norms(int64_t channels) : ChannelValues<C>(3, channels) {}
  void set(int64_t channel, const Norm<C>& norm) const {
    (*this)[0][channel] = norm.mean, (*this)[1][channel] = norm.factor;
    (*this)[2][channel] = norm.shift;
  }
  OneNorm<C> at(int64_t channel) const {
    return {EachNorm<C>{(*this)[0], (*this)[1], (*this)[2]}(channel)};
  }
};

// Kinds of channel values, one for each column of a tile.
template <class C, int kKinds>
struct TileValues {
  TileValues(const Columns& plan, const ChannelValues<C>& values, int64_t left, int64_t columns) {
    for (int kind = 0; kind < kKinds; ++kind) plan.spread(values[kind], left, columns, of[kind]);
  }
  C of[kKinds][kTileColumns];
};

// Mean and sum of squared deviations of some elements.
struct Moments {
  double count, mean, squares;
};

template <class T>
struct MomentsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static Moments run(const T* x, int64_t n) {
    C wide[kBlock], squares[kBlock];
    double sum = 0, total = 0;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      sum += lane_sum(widen(x + first, count, wide), count);
    }
    const C mean = C(sum / double(n));
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      const C* __restrict__ v = widen(x + first, count, wide);
      for (int64_t i = 0; i < count; ++i) squares[i] = (v[i] - mean) * (v[i] - mean);
      total += lane_sum(squares, count);
    }
    const double rounded = sum / double(n) - double(mean);
    return {double(n), sum / double(n), total - double(n) * rounded * rounded};
  }
};

// The moments of each column of a tile.
template <class T>
struct ColumnMomentsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      const T* x, int64_t width, int64_t rows, int64_t columns, int64_t last,
      Moments* to) {  // the bottom row has `last` columns
    C sum[kTileColumns] = {}, squares[kTileColumns] = {}, mean[kTileColumns], wide[kTileColumns];
    const auto each = [&](const auto& body) __attribute__((always_inline)) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t n = row + 1 == rows ? last : columns;
        body(widen(x + row * width, n, wide), n);
      }
    };
    each([&](const C* __restrict__ v, int64_t n) __attribute__((always_inline)) {
      for (int64_t i = 0; i < n; ++i) sum[i] += v[i];
    });
    for (int64_t i = 0; i < columns; ++i)
      mean[i] = sum[i] / C(std::max<int64_t>(1, rows - (i < last ? 0 : 1)));
    each([&](const C* __restrict__ v, int64_t n) __attribute__((always_inline)) {
      for (int64_t i = 0; i < n; ++i) squares[i] += (v[i] - mean[i]) * (v[i] - mean[i]);
    });
    for (int64_t i = 0; i < columns; ++i) {
      const double count = double(rows - (i < last ? 0 : 1));
      const double exact = double(sum[i]) / std::max(1.0, count), rounded = exact - mean[i];
      to[i] = {count, exact, squares[i] - count * rounded * rounded};
    }
  }
};

}  // namespace daqakd::cpu
