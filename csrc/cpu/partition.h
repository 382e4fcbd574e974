#pragma once

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <memory>

#include "../common/layout.h"

namespace daqakd::cpu {

// Work is cut by shape alone, so sums have one order for any number of threads.
constexpr int64_t kSegment = 16384;     // elements of a row that make one partial sum
constexpr int64_t kNarrow = 32;         // runs of a channel shorter than this are walked as columns
constexpr int64_t kTileColumns = 1024;  // columns of a tile
constexpr int64_t kTileRows = 32;       // rows of a tile
constexpr int64_t kGrain = 32768;       // elements that are worth another thread

inline bool is_narrow(const View& view) { return view.channels > 1 && view.inner < kNarrow; }

inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// torch's own threads: set_num_threads holds, and a caller inside a parallel region stays serial.
template <class F>
void parallel(int64_t tasks, int64_t elements_per_task, const F& body) {
  const int64_t grain = std::max<int64_t>(1, kGrain / std::max<int64_t>(1, elements_per_task));
  if (tasks <= grain) return body(int64_t(0), tasks);
  torch::stable::parallel_for(0, tasks, grain, body);
}

// Long runs: each of outer * channels runs is cut into segments; one task is one segment.
struct Rows {
  explicit Rows(const View& view) : view(view), segments(ceil_div(view.inner, kSegment)) {}

  // body(task, channel, first element, count)
  template <class F>
  void each(const F& body) const {
    parallel(
        view.outer * across(), std::min(view.inner, kSegment), [&](int64_t begin, int64_t end) {
          for (int64_t task = begin; task < end; ++task) {
            const int64_t row = task / segments, offset = (task % segments) * kSegment;
            body(
                task, row % view.channels, row * view.inner + offset,
                std::min(kSegment, view.inner - offset));
          }
        });
  }

  int64_t down() const { return view.outer; }
  int64_t across() const { return view.channels * segments; }
  int64_t copies() const { return 1; }
  int64_t group() const { return segments; }

  View view;
  int64_t segments;
};

// Short runs: memory as a matrix whose width is a multiple of channels * inner, so that a column
// has one channel; tiles of kTileRows x kTileColumns.
struct Columns {
  explicit Columns(const View& view)
      : view(view),
        period(view.channels * view.inner),
        width(period * std::max<int64_t>(1, kTileColumns / period)),
        rows(ceil_div(view.numel(), width)),
        tiles(ceil_div(width, kTileColumns)) {}

  // body(row of tiles, first column, columns, first row, last row)
  template <class F>
  void each(const F& body) const {
    parallel(
        down() * tiles, kTileRows * std::min(width, kTileColumns), [&](int64_t begin, int64_t end) {
          for (int64_t task = begin; task < end; ++task) {
            const int64_t top = task / tiles * kTileRows, left = task % tiles * kTileColumns;
            body(
                task / tiles, left, std::min(kTileColumns, width - left), top,
                std::min(rows, top + kTileRows));
          }
        });
  }

  // One parameter per column of a tile.
  template <class T>
  void spread(
      const T* parameter, int64_t left, int64_t columns, T* out) const {  // [C] -> [columns]
    int64_t channel = left % period / view.inner, within = left % view.inner;
    for (int64_t j = 0; j < columns; ++j) {
      out[j] = parameter[channel];
      if (++within == view.inner) {
        within = 0;
        channel = channel + 1 == view.channels ? 0 : channel + 1;
      }
    }
  }

  int64_t down() const { return ceil_div(rows, kTileRows); }
  int64_t across() const { return width; }
  int64_t copies() const { return width / period; }
  int64_t group() const { return view.inner; }

  View view;
  int64_t period, width, rows, tiles;
};

// Elements in memory order as rows that have one parameter, or a table of one per element.
template <class T>
struct ParameterRows {
  ParameterRows(const View& view, const T* parameter)  // [channels]
      : view(view), parameter(parameter), row(view.inner) {
    if (!is_narrow(view)) return;
    const Columns plan(view);
    row = plan.width;
    table = std::unique_ptr<T[]>(new T[row]);
    plan.spread(parameter, 0, row, table.get());
  }

  // body(first element, count, parameter(s), whether there is one) within [first, last)
  template <class F>
  void each(int64_t first, int64_t last, const F& body) const {
    for (int64_t at = first; at < last;) {
      const int64_t within = at % row, n = std::min(last - at, row - within);
      const T* values = table ? table.get() + within : parameter + at / row % view.channels;
      body(at, n, values, !table);
      at += n;
    }
  }

  View view;
  const T* parameter;
  int64_t row;
  std::unique_ptr<T[]> table;
};

// partials [down, across] -> out [channels], in double: down first, then copies and groups.
template <class Plan, class T>
void sum_partials(const Plan& plan, const T* partials, double scale, T* out) {
  const int64_t across = plan.across(), group = plan.group(), channels = plan.view.channels;
  auto totals = std::make_unique<double[]>(across);
  parallel(across, plan.down(), [&](int64_t begin, int64_t end) {
    for (int64_t row = 0; row < plan.down(); ++row)
      for (int64_t j = begin; j < end; ++j) totals[j] += double(partials[row * across + j]);
  });
  for (int64_t channel = 0; channel < channels; ++channel) {
    double sum = 0;
    for (int64_t copy = 0; copy < plan.copies(); ++copy)
      for (int64_t i = 0; i < group; ++i) sum += totals[(copy * channels + channel) * group + i];
    out[channel] = T(sum * scale);
  }
}

}  // namespace daqakd::cpu
