#pragma once

#include "codes.h"
#include "moments.h"

// Forward passes of bn_act_quant: statistics, then the values.
namespace daqakd::cpu {

template <class T>
struct ForwardTensors {
  const T *x, *residual;  // residual: null without
  T *y, *activation;      // activation: null where nobody reads it
};

template <class T, class Q>
struct ForwardBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      ForwardTensors<T> all, PieceRange range, EachNorm<C> norms, ActivationRange<C> clip,
      const Q* q) {
    range.each([&](int64_t, int64_t channel, const Piece& piece, int64_t) __attribute__((
                   always_inline)) { of(all, piece, OneNorm<C>{norms(channel)}, clip, q); });
  }

  template <class NormOf>
  DAQAKD_INLINE static void of(
      const ForwardTensors<T>& all, const Piece& piece, const NormOf& norm,
      const ActivationRange<C>& clip, const Q* q) {
    C from[kBlock], added[kBlock], activated[kBlock], quantized[kBlock];
    for (int64_t first = 0; first < piece.count; first += kBlock) {
      const int64_t n = std::min<int64_t>(kBlock, piece.count - first);
      const C* __restrict__ x = gather(all.x, piece, first, n, from);
      const C* __restrict__ r = gather_or_zero(all.residual, piece, first, n, added);
      const Q own = *q;  // no store can change it
      C* __restrict__ y = place(all.y, piece, first, n, quantized);
      const auto value = [&](int64_t i) __attribute__((always_inline)) {
        return clip.value(norm(first + i).value(x[i] - norm(first + i).mean) + r[i]);
      };
      if (all.activation) {
        C* __restrict__ t = place(all.activation, piece, first, n, activated);
        DAQAKD_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) {
          const C u = value(i);
          t[i] = u;
          y[i] = own.value(u);
        }
        settle(t, activated, piece, first, n, all.activation);
      } else {
        DAQAKD_INDEPENDENT
        for (int64_t i = 0; i < n; ++i) y[i] = own.value(value(i));
      }
      settle(y, quantized, piece, first, n, all.y);
    }
  }
};

// The same for a row of a tile of columns.
template <class T, class Q>
struct ColumnForwardBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      ForwardTensors<T> all, Piece piece, EachNorm<C> norms, ActivationRange<C> clip, const Q* q) {
    ForwardBody<T, Q>::of(all, piece, norms, clip, q);
  }
};

// How the norm of a channel follows from its moments, where training; and what is noted of them.
template <class C>
struct NormMaker {
  const C *weight, *bias;         // [C] or null
  C *running_mean, *running_var;  // [C] or null; updated
  double momentum, eps;
  C* statistics;  // [2, C]: mean, 1 / standard deviation

  Norm<C> make(int64_t channel, int64_t channels, double mean, double var) const {
    statistics[channel] = C(mean);
    statistics[channels + channel] = C(1 / std::sqrt(var + eps));
    return of(channel, channels);
  }

  Norm<C> of(int64_t channel, int64_t channels) const {
    return {
        statistics[channel], statistics[channels + channel], weight ? weight[channel] : C(1),
        bias ? bias[channel] : C(0)};
  }

  template <class Plan>
  Norm<C> from_batch(const Plan& plan, const Moments* partials, int64_t channel) const {
    double count = 0, sum = 0, squares = 0;
    each_partial(plan, channel, [&](int64_t i) {
      count += partials[i].count;
      sum += partials[i].count * partials[i].mean;
    });
    const double mean = sum / count;
    each_partial(plan, channel, [&](int64_t i) {
      const double shift = partials[i].mean - mean;
      squares += partials[i].squares + partials[i].count * shift * shift;
    });
    if (running_mean) {
      note(running_mean[channel], mean);
      note(running_var[channel], squares / std::max(1.0, count - 1));
    }
    return make(channel, plan.view.channels, mean, squares / count);
  }

  Norm<C> from_running(int64_t channel, int64_t channels) const {
    return make(channel, channels, running_mean[channel], running_var[channel]);
  }

  void note(C& running, double value) const {
    running = C((1 - momentum) * double(running) + momentum * value);
  }
};

// Where channels share bytes of the codes (null without), these take a pass over y of their own.
template <class T, class Q>
void forward(
    const Pieces& plan, const ForwardTensors<T>& all, bool training,
    const NormMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q,
    const CodePacker<T>* codes) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels;
  const bool in_pass = codes && codes->is_whole(plan.view.inner);
  const Norms<C> norms(channels);
  const std::unique_ptr<Moments[]> partials(new Moments[training ? plan.partials() : 1]);
  pass_over<C>(
      plan, 0,
      [&](const PieceRange& pieces, C*) {
        if (training) run<MomentsBody<T>>(all.x, pieces, partials.get());
      },
      [&](int64_t channel) {
        norms.set(
            channel, training ? maker.from_batch(plan, partials.get(), channel)
                              : maker.from_running(channel, channels));
      },
      [&](const PieceRange& pieces, C*) {
        const auto write = [&](const PieceRange& some) {
          run<ForwardBody<T, Q>>(all, some, norms.each(), range, &q);
        };
        if (!in_pass) return write(pieces);
        pieces.each_part([&](const PieceRange& some) {
          write(some);
          some.each_stretch([&](int64_t first, int64_t n) { codes->pack(first, n); });
        });
      });
  if (codes && !in_pass) codes->pack_all(plan.view.numel());
}

template <class T, class Q>
void forward(
    const Columns& plan, const ForwardTensors<T>& all, bool training,
    const NormMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q,
    const CodePacker<T>* codes) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels, numel = plan.view.numel();
  const bool in_pass = codes && codes->is_whole(plan.width);
  const Norms<C> norms(channels);
  const std::unique_ptr<Moments[]> partials(
      new Moments[training ? plan.down() * plan.across() : 1]);
  pass_over(
      plan,
      [&](int64_t tile, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
        const int64_t last = numel - ((bottom - 1) * plan.width + left);
        if (training)
          run<ColumnMomentsBody<T>>(
              all.x + top * plan.width + left, plan.width, bottom - top, columns,
              std::clamp<int64_t>(last, 0, columns), partials.get() + tile * plan.width + left);
      },
      [&](int64_t channel) {
        norms.set(
            channel, training ? maker.from_batch(plan, partials.get(), channel)
                              : maker.from_running(channel, channels));
      },
      [&](int64_t, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
        const TileValues<C, 3> tile(plan, norms, left, columns);
        for (int64_t row = top; row < bottom; ++row) {
          const int64_t first = row * plan.width + left;
          const int64_t n = std::min(columns, numel - first);
          run<ColumnForwardBody<T, Q>>(
              all, Piece{first, std::max<int64_t>(n, 1), 0, n},
              EachNorm<C>{tile.of[0], tile.of[1], tile.of[2]}, range, &q);
          if (in_pass) codes->pack(first, n);
        }
      });
  if (codes && !in_pass) codes->pack_all(numel);
}

}  // namespace daqakd::cpu
