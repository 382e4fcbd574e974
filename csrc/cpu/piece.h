#pragma once

#include <algorithm>
#include <type_traits>

#include "element.h"

// The elements of one channel, which lie in runs, as blocks side by side.
namespace daqakd::cpu {

// Elements of one channel: runs of `inner` neighbours, `stride` apart.
struct Piece {
  // Where n elements from `first` on lie, if they are neighbours, else -1.
  DAQAKD_INLINE int64_t neighbours(int64_t first, int64_t n) const {
    if (count <= inner) return start + first;
    const int64_t within = first % inner;
    return within + n <= inner ? start + first / inner * stride + within : -1;
  }

  int64_t start, inner, stride, count;
};

// Elements from `first` on of a piece, wherever its runs lie: body(address, place, count).
template <class F>
DAQAKD_INLINE void each_run(const Piece& piece, int64_t first, int64_t n, const F& body) {
  int64_t within = piece.count <= piece.inner ? first : first % piece.inner;
  int64_t at = piece.start + within;
  if (within != first) at += first / piece.inner * piece.stride;
  for (int64_t place = 0; place < n;) {
    const int64_t count = std::min(n - place, piece.inner - within);
    body(at, place, count);
    place += count;
    at += piece.stride - within;
    within = 0;
  }
}

// n elements from `first` on, side by side: those of x where they are, or the buffer.
template <class T>
DAQAKD_INLINE const Compute<T>* gather(
    const T* x, const Piece& piece, int64_t first, int64_t n, Compute<T>* buffer) {
  const int64_t at = piece.neighbours(first, n);
  if (at >= 0) return widen(x + at, n, buffer);
  each_run(
      piece, first, n,
      [&](int64_t at, int64_t place, int64_t count) __attribute__((always_inline)) {
        for (int64_t i = 0; i < count; ++i) buffer[place + i] = load(x[at + i]);
      });
  return buffer;
}

template <class T>
DAQAKD_INLINE void scatter(
    const Compute<T>* __restrict__ from, const Piece& piece, int64_t first, int64_t n, T* y) {
  each_run(
      piece, first, n,
      [&](int64_t at, int64_t place, int64_t count) __attribute__((always_inline)) {
        for (int64_t i = 0; i < count; ++i) y[at + i] = store<T>(from[place + i]);
      });
}

template <class C>
inline constexpr C kZeros[kBlock] = {};

// The same, zeros where there is no x.
template <class T>
DAQAKD_INLINE const Compute<T>* gather_or_zero(
    const T* x, const Piece& piece, int64_t first, int64_t n, Compute<T>* buffer) {
  return x ? gather(x, piece, first, n, buffer) : kZeros<Compute<T>>;
}

// Where to compute n elements from `first` on: where they belong, or the buffer, for settle().
template <class T>
DAQAKD_INLINE Compute<T>* place(
    T* y, const Piece& piece, int64_t first, int64_t n, Compute<T>* buffer) {
  if constexpr (std::is_same_v<T, Compute<T>>) {
    const int64_t at = piece.neighbours(first, n);
    if (at >= 0) return y + at;
  }
  return buffer;
}

template <class T>
DAQAKD_INLINE void settle(
    const Compute<T>* placed, const Compute<T>* buffer, const Piece& piece, int64_t first,
    int64_t n, T* y) {
  if (placed == buffer) scatter(buffer, piece, first, n, y);
}

}  // namespace daqakd::cpu
