#pragma once

#include "bn_gradients.h"

// Backward passes of bn_act_quant: sums of each channel, then the gradients of its elements.
namespace daqakd::cpu {

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
