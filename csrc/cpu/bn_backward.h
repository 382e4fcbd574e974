#pragma once

#include "channels.h"

// Backward passes of bn_act_quant: sums of each channel, then the gradients of its elements.
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

// How a channel's gradients follow from its sums.
template <class C>
struct GradientMaker {
  const C* statistics;  // [2, C]
  bool training;
  double count;        // elements of a channel
  C *dweight, *dbias;  // [C]

  NormGradient<C> make(int64_t channel, int64_t channels, double bias, double centred) const {
    const double invstd = statistics[channels + channel];
    dweight[channel] = C(centred * invstd);
    dbias[channel] = C(bias);
    return training ? NormGradient<C>(bias, centred, invstd, count) : NormGradient<C>(0, 0, 0, 1);
  }
};

template <class C>
struct GradientValues : ChannelValues<C> {
  explicit GradientValues(int64_t channels) : ChannelValues<C>(2, channels) {}
  void set(int64_t channel, const NormGradient<C>& one) const {
    (*this)[0][channel] = one.mean, (*this)[1][channel] = one.slope;
  }
  EachGradient<C> each() const { return {(*this)[0], (*this)[1]}; }
};

// All gradients; the quantizer's sums go to quantizer[kSums].
template <class T, class Q>
void backward_of_norm(
    const Pieces& plan, const BackwardTensors<T>& all, const Norms<Compute<T>>& norms,
    const GradientMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q,
    double* quantizer) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels, count = plan.partials();
  const GradientValues<C> gradients(channels);
  const std::unique_ptr<ChannelSums[]> partials(new ChannelSums[count]);
  const int64_t capacity = BackwardTensors<T>::kKeepsInPlace ? 0 : plan.largest();
  pass_over<C>(
      plan, capacity,
      [&](const PieceRange& pieces, C* scratch) {
        run<SumsBody<T, Q>>(
            all, pieces, norms.each(), range, &q, scratch, capacity, partials.get());
      },
      [&](int64_t channel) {
        double bias = 0, centred = 0;
        each_partial(plan, channel, [&](int64_t i) {
          bias += partials[i].bias;
          centred += partials[i].centred;
        });
        gradients.set(channel, maker.make(channel, channels, bias, centred));
      },
      [&](const PieceRange& pieces, C* scratch) {
        run<InputGradientBody<T>>(
            all, pieces, norms.each(), gradients.each(), static_cast<const C*>(scratch), capacity);
      });
  for (int k = 0; k < Q::kSums; ++k)
    for (int64_t i = 0; i < count; ++i) quantizer[k] += partials[i].quantizer[k];
}

template <class T, class Q>
void backward_of_norm(
    const Columns& plan, const BackwardTensors<T>& all, const Norms<Compute<T>>& norms,
    const GradientMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q,
    double* quantizer) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels, numel = plan.view.numel();
  const int64_t count = plan.down() * plan.across(), tiles = plan.down() * plan.tiles;
  const GradientValues<C> gradients(channels);
  const ChannelValues<double> partials(2, count), sums(Q::kSums, tiles);
  std::fill_n(partials[0], 2 * count, 0.0);
  std::fill_n(sums[0], Q::kSums * tiles, 0.0);
  const std::unique_ptr<C[]> scratch(new C[BackwardTensors<T>::kKeepsInPlace ? 0 : numel]);
  const auto piece_at = [&](int64_t first, int64_t columns) {
    const int64_t n = std::min(columns, numel - first);
    return Piece{first, std::max<int64_t>(n, 1), 0, n};
  };
  pass_over(
      plan,
      [&](int64_t tile, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
        const TileValues<C, 3> norm(plan, norms, left, columns);
        const int64_t to = tile * plan.width + left,
                      place = tile * plan.tiles + left / kTileColumns;
        for (int64_t row = top; row < bottom; ++row) {
          const int64_t first = row * plan.width + left;
          double own[kMostSums] = {};
          run<ColumnSumsBody<T, Q>>(
              all, piece_at(first, columns), EachNorm<C>{norm.of[0], norm.of[1], norm.of[2]}, range,
              &q, scratch.get() + first, partials[0] + to, partials[1] + to, own);
          for (int k = 0; k < Q::kSums; ++k) sums[k][place] += own[k];
        }
      },
      [&](int64_t channel) {
        double bias = 0, centred = 0;
        each_partial(plan, channel, [&](int64_t i) {
          bias += partials[0][i];
          centred += partials[1][i];
        });
        gradients.set(channel, maker.make(channel, channels, bias, centred));
      },
      [&](int64_t, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
        const TileValues<C, 3> norm(plan, norms, left, columns);
        const TileValues<C, 2> gradient(plan, gradients, left, columns);
        for (int64_t row = top; row < bottom; ++row) {
          const int64_t first = row * plan.width + left;
          run<ColumnInputGradientBody<T>>(
              all, piece_at(first, columns), EachNorm<C>{norm.of[0], norm.of[1], norm.of[2]},
              EachGradient<C>{gradient.of[0], gradient.of[1]},
              static_cast<const C*>(scratch.get()) + first);
        }
      });
  for (int k = 0; k < Q::kSums; ++k)
    for (int64_t i = 0; i < tiles; ++i) quantizer[k] += sums[k][i];
}

}  // namespace daqakd::cpu
