#pragma once

#include "channels.h"

// Forward passes of bn_act_quant: statistics, then the values.
namespace daqakd::cpu {

template <class T>
struct ForwardTensors {
  const T *x, *residual;  // residual: null without
  T *y, *activation;      // activation: null where nobody reads it
};

template <class T, class Q, class NormOf>
struct ForwardBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      ForwardTensors<T> all, int64_t start, int64_t n, NormOf norm, ActivationRange<C> range,
      const Q* q) {
    C from[kBlock], added[kBlock], u[kBlock], to[kBlock];
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first), at = start + first;
      const C* __restrict__ x = widen(all.x + at, count, from);
      for (int64_t i = 0; i < count; ++i) u[i] = norm(first + i).value(x[i] - norm(first + i).mean);
      if (all.residual) {
        const C* __restrict__ r = widen(all.residual + at, count, added);
        for (int64_t i = 0; i < count; ++i) u[i] += r[i];
      }
      for (int64_t i = 0; i < count; ++i) u[i] = range.value(u[i]);
      if (all.activation) keep(u, count, all.activation + at);
      C* __restrict__ out = target(all.y + at, to);
      for (int64_t i = 0; i < count; ++i) out[i] = q->value(u[i]);
      narrow(out, count, all.y + at);
    }
  }

  DAQAKD_INLINE static void keep(const C* __restrict__ u, int64_t n, T* __restrict__ to) {
    for (int64_t i = 0; i < n; ++i) to[i] = store<T>(u[i]);
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

template <class T, class Q>
void forward(
    const Rows& plan, const ForwardTensors<T>& all, bool training,
    const NormMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels;
  const Norms<C> norms(channels);
  const std::unique_ptr<Moments[]> partials(
      new Moments[training ? plan.down() * plan.across() : 1]);
  pass_over(
      plan,
      [&](int64_t task, int64_t, int64_t first, int64_t n) {
        if (training) partials[task] = run<MomentsBody<T>>(all.x + first, n);
      },
      [&](int64_t channel) {
        norms.set(
            channel, training ? maker.from_batch(plan, partials.get(), channel)
                              : maker.from_running(channel, channels));
      },
      [&](int64_t, int64_t channel, int64_t first, int64_t n) {
        run<ForwardBody<T, Q, OneNorm<C>>>(all, first, n, norms.at(channel), range, &q);
      });
}

template <class T, class Q>
void forward(
    const Columns& plan, const ForwardTensors<T>& all, bool training,
    const NormMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels, numel = plan.view.numel();
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
          run<ForwardBody<T, Q, EachNorm<C>>>(
              all, first, std::min(columns, numel - first),
              EachNorm<C>{tile.of[0], tile.of[1], tile.of[2]}, range, &q);
        }
      });
}

}  // namespace daqakd::cpu
