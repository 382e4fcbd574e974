#pragma once

#include "channels.h"

// Mean and variance, by pieces of a channel or by columns of a tile.
namespace daqakd::cpu {

// Mean and sum of squared deviations of some elements.
struct Moments {
  double count, mean, squares;
};

template <class T>
struct MomentsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(const T* x, PieceRange range, Moments* partials) {
    range.each([&](int64_t index, int64_t, const Piece& piece, int64_t)
                   __attribute__((always_inline)) { partials[index] = of(x, piece); });
  }

  DAQAKD_INLINE static Moments of(const T* x, const Piece& piece) {
    C wide[kBlock];
    double sum = 0, total = 0;
    const double n = double(piece.count);
    for (int64_t first = 0; first < piece.count; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, piece.count - first);
      const C* __restrict__ v = gather(x, piece, first, count, wide);
      sum += lane_sum<C>(count, [&](int64_t i) __attribute__((always_inline)) { return v[i]; });
    }
    const C mean = C(sum / n);
    for (int64_t first = 0; first < piece.count; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, piece.count - first);
      const C* __restrict__ v = gather(x, piece, first, count, wide);
      total += lane_sum<C>(count, [&](int64_t i) __attribute__((always_inline)) {
        return (v[i] - mean) * (v[i] - mean);
      });
    }
    const double rounded = sum / n - double(mean);
    return {n, sum / n, total - n * rounded * rounded};
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
