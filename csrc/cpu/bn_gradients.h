#pragma once

#include "channels.h"

// What the backward passes of bn_act_quant do with a piece, or with a row of a tile.
namespace daqakd::cpu {

template <class T>
struct BackwardTensors {
  // Where the first pass leaves du for the second; 16 bits would not hold it.
  static constexpr bool kKeepsInPlace = std::is_same_v<T, Compute<T>>;
  DAQAKD_INLINE T* kept() const { return dresidual ? dresidual : dx; }

  const T *grad, *grad_activation, *x, *residual;  // all but x: null without
  T *dx, *dresidual;                               // dresidual: null where nobody wants it
};

// A block's gradients in front of the norm, made again from the input.
template <class T, class Q>
struct BlockGradients {
  using C = Compute<T>;

  DAQAKD_INLINE BlockGradients(
      const BackwardTensors<T>& all, const Piece& piece, int64_t first, int64_t n, C* scratch)
      : all(all), piece(piece), first(first), n(n) {
    x = gather(all.x, piece, first, n, a);
    r = gather_or_zero(all.residual, piece, first, n, b);
    g = gather_or_zero(all.grad, piece, first, n, c);
    ga = gather_or_zero(all.grad_activation, piece, first, n, d);
    if constexpr (BackwardTensors<T>::kKeepsInPlace)
      kept = place(all.kept(), piece, first, n, buffer);
    else
      kept = scratch + first;
  }

  // add(i, lane, du, du * (x - mean), sums of the quantizer), with du kept for the second pass.
  template <class NormOf, class F>
  DAQAKD_INLINE void each(
      const NormOf& norm, const ActivationRange<C>& range, const Q* q, const F& add) {
    const C* __restrict__ from = x;
    const C* __restrict__ added = r;
    const C* __restrict__ grad = g;
    const C* __restrict__ grad_activation = ga;
    C* __restrict__ to = kept;
    const Q own = *q;  // no store can change it
    by_lanes(n, [&](int64_t i, int lane) __attribute__((always_inline)) {
      const C centred = from[i] - norm(first + i).mean;
      const C u = norm(first + i).value(centred) + added[i];
      const auto one = own.gradient(grad[i], range.value(u));
      const C du = range.gradient(one.dx + grad_activation[i], u);
      to[i] = du;
      add(i, lane, du, du * centred, one.sums);
    });
    if constexpr (BackwardTensors<T>::kKeepsInPlace)
      settle(kept, buffer, piece, first, n, all.kept());
    else if (all.dresidual)
      scatter(kept, piece, first, n, all.dresidual);
  }

  const BackwardTensors<T>& all;
  const Piece& piece;
  int64_t first, n;
  const C *x, *r, *g, *ga;
  C* kept;
  C a[kBlock], b[kBlock], c[kBlock], d[kBlock], buffer[kBlock];
};

constexpr int kMostSums = 2;  // of a quantizer's parameters

// Sums of du, of du * (x - mean), and those of the quantizer.
struct ChannelSums {
  double bias = 0, centred = 0, quantizer[kMostSums] = {};
};

template <class T, class Q>
struct SumsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      BackwardTensors<T> all, PieceRange range, EachNorm<C> norms, ActivationRange<C> clip,
      const Q* q, C* scratch, int64_t capacity, ChannelSums* partials) {
    range.each([&](int64_t index, int64_t channel, const Piece& piece, int64_t number)
                   __attribute__((always_inline)) {
                     const OneNorm<C> norm{norms(channel)};
                     partials[index] = of(all, piece, norm, clip, q, scratch + number * capacity);
                   });
  }

  DAQAKD_INLINE static ChannelSums of(
      const BackwardTensors<T>& all, const Piece& piece, const OneNorm<C>& norm,
      const ActivationRange<C>& clip, const Q* q, C* scratch) {
    ChannelSums sums;
    for (int64_t first = 0; first < piece.count; first += kBlock) {
      const int64_t n = std::min<int64_t>(kBlock, piece.count - first);
      C lanes[kMostSums + 2][kLanes] = {};
      BlockGradients<T, Q>(all, piece, first, n, scratch)
          .each(
              norm, clip, q,
              [&](int64_t, int lane, C du, C centred, const C* own) __attribute__((always_inline)) {
                lanes[0][lane] += du;
                lanes[1][lane] += centred;
                for (int k = 0; k < Q::kSums; ++k) lanes[2 + k][lane] += own[k];
              });
      sums.bias += double(add_lanes(lanes[0]));
      sums.centred += double(add_lanes(lanes[1]));
      for (int k = 0; k < Q::kSums; ++k) sums.quantizer[k] += double(add_lanes(lanes[2 + k]));
    }
    return sums;
  }
};

template <class T, class Q>
struct ColumnSumsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      BackwardTensors<T> all, Piece piece, EachNorm<C> norm, ActivationRange<C> range, const Q* q,
      C* scratch, double* bias, double* centred, double* quantizer) {  // [n], [n], [kSums]
    for (int64_t first = 0; first < piece.count; first += kBlock) {
      const int64_t n = std::min<int64_t>(kBlock, piece.count - first);
      double* __restrict__ to_bias = bias + first;
      double* __restrict__ to_centred = centred + first;
      C lanes[kMostSums][kLanes] = {};
      BlockGradients<T, Q>(all, piece, first, n, scratch)
          .each(
              norm, range, q,
              [&](int64_t i, int lane, C du, C product, const C* own)
                  __attribute__((always_inline)) {
                    to_bias[i] += double(du);
                    to_centred[i] += double(product);
                    for (int k = 0; k < Q::kSums; ++k) lanes[k][lane] += own[k];
                  });
      for (int k = 0; k < Q::kSums; ++k) quantizer[k] += double(add_lanes(lanes[k]));
    }
  }
};

// What the gradient of element i of a piece needs besides its norm.
template <class C>
struct OneGradient {
  DAQAKD_INLINE const NormGradient<C>& operator()(int64_t) const { return value; }
  NormGradient<C> value;
};
template <class C>
struct EachGradient {
  DAQAKD_INLINE NormGradient<C> operator()(int64_t i) const {
    NormGradient<C> one;
    one.mean = mean[i], one.slope = slope[i];
    return one;
  }
  const C* __restrict__ mean, * __restrict__ slope;
};

// dx, from the input and what the first pass has kept.
template <class T>
struct InputGradientBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      BackwardTensors<T> all, PieceRange range, EachNorm<C> norms, EachGradient<C> gradients,
      const C* scratch, int64_t capacity) {
    range.each([&](int64_t, int64_t channel, const Piece& piece, int64_t number)
                   __attribute__((always_inline)) {
                     of(all, piece, OneNorm<C>{norms(channel)}, OneGradient<C>{gradients(channel)},
                        scratch + number * capacity);
                   });
  }

  template <class NormOf, class GradientOf>
  DAQAKD_INLINE static void of(
      const BackwardTensors<T>& all, const Piece& piece, const NormOf& norm,
      const GradientOf& gradient, const C* scratch) {
    C from[kBlock], kept[kBlock], buffer[kBlock];
    for (int64_t first = 0; first < piece.count; first += kBlock) {
      const int64_t n = std::min<int64_t>(kBlock, piece.count - first);
      const C* __restrict__ x = gather(all.x, piece, first, n, from);
      const C* du;
      if constexpr (BackwardTensors<T>::kKeepsInPlace)
        du = gather(static_cast<const T*>(all.kept()), piece, first, n, kept);
      else
        du = scratch + first;
      C* to = place(all.dx, piece, first, n, buffer);
      DAQAKD_INDEPENDENT
      for (int64_t i = 0; i < n; ++i)
        to[i] = gradient(first + i).value(du[i], x[i] - norm(first + i).mean, norm(first + i));
      settle(to, buffer, piece, first, n, all.dx);
    }
  }
};

// The same for a row of a tile of columns.
template <class T>
struct ColumnInputGradientBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      BackwardTensors<T> all, Piece piece, EachNorm<C> norms, EachGradient<C> gradients,
      const C* scratch) {
    InputGradientBody<T>::of(all, piece, norms, gradients, scratch);
  }
};

}  // namespace daqakd::cpu
