#pragma once

#include "channels.h"

// Backward passes of bn_act_quant: sums of each channel, then the gradients of its elements.
namespace daqakd::cpu {

template <class T>
struct BackwardTensors {
  // Where the first pass leaves du for the second; 16 bits would not hold it, so there it is made
  // again.
  static constexpr bool kKeepsGradients = std::is_same_v<T, Compute<T>>;
  DAQAKD_INLINE T* kept() const { return dresidual ? dresidual : dx; }

  const T *grad, *grad_activation, *x, *residual;  // all but x: null without
  T *dx, *dresidual;                               // dresidual: null where nobody wants it
};

// A block's gradients in front of the norm, made again from the input.
template <class T, class Q, class NormOf>
struct BlockGradients {
  using C = Compute<T>;

  DAQAKD_INLINE static const C* read(const T* x, int64_t at, int64_t n, C* buffer) {
    if (x) return widen(x + at, n, buffer);
    std::fill_n(buffer, n, C(0));
    return buffer;
  }

  DAQAKD_INLINE void fill(
      const BackwardTensors<T>& all, int64_t at, int64_t first, int64_t n, const NormOf& norm,
      const ActivationRange<C>& range, const Q* q) {
    const C* __restrict__ x = widen(all.x + at, n, a);
    const C* __restrict__ r = read(all.residual, at, n, b);
    const C* __restrict__ g = read(all.grad, at, n, c);
    const C* __restrict__ ga = read(all.grad_activation, at, n, d);
    for (int64_t i = 0; i < n; ++i) {
      centred[i] = x[i] - norm(first + i).mean;
      const C u = norm(first + i).value(centred[i]) + r[i];
      const auto one = q->gradient(g[i], range.value(u));
      du[i] = range.gradient(one.dx + ga[i], u);
      for (int k = 0; k < Q::kSums; ++k) sums[k][i] = one.sums[k];
    }
  }

  DAQAKD_INLINE void keep(const BackwardTensors<T>& all, int64_t at, int64_t n) const {
    if constexpr (BackwardTensors<T>::kKeepsGradients) std::copy_n(du, n, all.kept() + at);
  }

  // What fill() and keep() left, for the second pass.
  DAQAKD_INLINE void again(
      const BackwardTensors<T>& all, int64_t at, int64_t first, int64_t n, const NormOf& norm,
      const ActivationRange<C>& range, const Q* q) {
    if constexpr (!BackwardTensors<T>::kKeepsGradients) {
      fill(all, at, first, n, norm, range, q);
      if (all.dresidual) narrow<T>(du, n, all.dresidual + at);
    } else {
      std::copy_n(all.kept() + at, n, du);
      const T* __restrict__ x = all.x + at;
      for (int64_t i = 0; i < n; ++i) centred[i] = x[i] - norm(first + i).mean;
    }
  }

  C a[kBlock], b[kBlock], c[kBlock], d[kBlock];
  C centred[kBlock], du[kBlock], sums[Q::kSums + 1][kBlock];
};

constexpr int kMostSums = 2;  // of a quantizer's parameters

// Sums of du, of du * (x - mean), and those of the quantizer.
struct ChannelSums {
  double bias = 0, centred = 0, quantizer[kMostSums] = {};
};

template <class T, class Q>
struct SumsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static ChannelSums run(
      BackwardTensors<T> all, int64_t start, int64_t n, OneNorm<C> norm, ActivationRange<C> range,
      const Q* q) {
    BlockGradients<T, Q, OneNorm<C>> block;
    ChannelSums sums;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      block.fill(all, start + first, first, count, norm, range, q);
      block.keep(all, start + first, count);
      sums.bias += lane_sum(block.du, count);
      for (int64_t i = 0; i < count; ++i) block.centred[i] *= block.du[i];
      sums.centred += lane_sum(block.centred, count);
      for (int k = 0; k < Q::kSums; ++k) sums.quantizer[k] += lane_sum(block.sums[k], count);
    }
    return sums;
  }
};

template <class T, class Q>
struct ColumnSumsBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      BackwardTensors<T> all, int64_t start, int64_t n, EachNorm<C> norm, ActivationRange<C> range,
      const Q* q, double* bias, double* centred, double* quantizer) {  // [n], [n], [kSums]
    BlockGradients<T, Q, EachNorm<C>> block;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      block.fill(all, start + first, first, count, norm, range, q);
      block.keep(all, start + first, count);
      double* __restrict__ to_bias = bias + first, * __restrict__ to_centred = centred + first;
      for (int64_t i = 0; i < count; ++i) to_bias[i] += double(block.du[i]);
      for (int64_t i = 0; i < count; ++i) to_centred[i] += double(block.du[i] * block.centred[i]);
      for (int k = 0; k < Q::kSums; ++k) quantizer[k] += lane_sum(block.sums[k], count);
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

template <class T, class Q, class NormOf, class GradientOf>
struct NormBackwardBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      BackwardTensors<T> all, int64_t start, int64_t n, NormOf norm, GradientOf gradient,
      ActivationRange<C> range, const Q* q) {
    BlockGradients<T, Q, NormOf> block;
    C to[kBlock];
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first), at = start + first;
      block.again(all, at, first, count, norm, range, q);
      C* __restrict__ out = target(all.dx + at, to);
      for (int64_t i = 0; i < count; ++i)
        out[i] = gradient(first + i).value(block.du[i], block.centred[i], norm(first + i));
      narrow(out, count, all.dx + at);
    }
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
  OneGradient<C> at(int64_t channel) const {
    return {EachGradient<C>{(*this)[0], (*this)[1]}(channel)};
  }
};

// All gradients; the quantizer's sums go to quantizer[kSums].
template <class T, class Q>
void backward_of_norm(
    const Rows& plan, const BackwardTensors<T>& all, const Norms<Compute<T>>& norms,
    const GradientMaker<Compute<T>>& maker, ActivationRange<Compute<T>> range, const Q& q,
    double* quantizer) {
  using C = Compute<T>;
  const int64_t channels = plan.view.channels, count = plan.down() * plan.across();
  const GradientValues<C> gradients(channels);
  const std::unique_ptr<ChannelSums[]> partials(new ChannelSums[count]);
  pass_over(
      plan,
      [&](int64_t task, int64_t channel, int64_t first, int64_t n) {
        partials[task] = run<SumsBody<T, Q>>(all, first, n, norms.at(channel), range, &q);
      },
      [&](int64_t channel) {
        double bias = 0, centred = 0;
        each_partial(plan, channel, [&](int64_t i) {
          bias += partials[i].bias;
          centred += partials[i].centred;
        });
        gradients.set(channel, maker.make(channel, channels, bias, centred));
      },
      [&](int64_t, int64_t channel, int64_t first, int64_t n) {
        run<NormBackwardBody<T, Q, OneNorm<C>, OneGradient<C>>>(
            all, first, n, norms.at(channel), gradients.at(channel), range, &q);
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
  const int64_t count = plan.down() * plan.across();
  const GradientValues<C> gradients(channels);
  const ChannelValues<double> partials(2, count), sums(Q::kSums, plan.down() * plan.tiles);
  std::fill_n(partials[0], 2 * count, 0.0);
  std::fill_n(sums[0], Q::kSums * plan.down() * plan.tiles, 0.0);
  pass_over(
      plan,
      [&](int64_t tile, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
        const TileValues<C, 3> norm(plan, norms, left, columns);
        double own[kMostSums] = {};
        for (int64_t row = top; row < bottom; ++row) {
          const int64_t first = row * plan.width + left, to = tile * plan.width + left;
          run<ColumnSumsBody<T, Q>>(
              all, first, std::min(columns, numel - first),
              EachNorm<C>{norm.of[0], norm.of[1], norm.of[2]}, range, &q, partials[0] + to,
              partials[1] + to, own);
        }
        for (int k = 0; k < Q::kSums; ++k)
          sums[k][tile * plan.tiles + left / kTileColumns] = own[k];
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
          run<NormBackwardBody<T, Q, EachNorm<C>, EachGradient<C>>>(
              all, first, std::min(columns, numel - first),
              EachNorm<C>{norm.of[0], norm.of[1], norm.of[2]},
              EachGradient<C>{gradient.of[0], gradient.of[1]}, range, &q);
        }
      });
  for (int k = 0; k < Q::kSums; ++k)
    for (int64_t i = 0; i < plan.down() * plan.tiles; ++i) quantizer[k] += sums[k][i];
}

}  // namespace daqakd::cpu
