#pragma once

#include <memory>

#include "../formulas/bn_act_quant.h"
#include "partition.h"
#include "piece.h"
#include "simd.h"

// Passes over tensors whose channels depend on sums over themselves.
namespace daqakd::cpu {

// body(i, lane) for n elements, in 16 lanes: sums by lane have one order on every instruction set.
template <class F>
DAQAKD_INLINE void by_lanes(int64_t n, const F& body) {
  const int64_t whole = n / kLanes * kLanes;
  for (int64_t i = 0; i < whole; i += kLanes) {
    DAQAKD_INDEPENDENT
    for (int lane = 0; lane < kLanes; ++lane) body(i + lane, lane);
  }
  for (int64_t i = whole; i < n; ++i) body(i, int(i - whole));
}

// The sum of term(i) over a block: it leaves its 16 lanes as double, so many blocks lose nothing.
template <class C, class F>
DAQAKD_INLINE double lane_sum(int64_t n, const F& term) {
  C lanes[kLanes] = {};
  by_lanes(n, [&](int64_t i, int lane) __attribute__((always_inline)) { lanes[lane] += term(i); });
  return double(add_lanes(lanes));
}

// The partial results of a channel, wherever they are: body(index).
template <class F>
void each_partial(const Columns& plan, int64_t channel, const F& body) {
  const int64_t group = plan.group(), channels = plan.view.channels;
  for (int64_t row = 0; row < plan.down(); ++row)
    for (int64_t copy = 0; copy < plan.copies(); ++copy)
      for (int64_t i = 0; i < group; ++i)
        body(row * plan.across() + (copy * channels + channel) * group + i);
}

constexpr int64_t kShortest = 16;  // runs of a channel shorter than this are walked as columns

constexpr int64_t kPiece = 1024;     // elements of a piece, whose sums are one partial
constexpr int64_t kTogether = 8192;  // neighbours that channels are grouped to, eight pages

// Long runs are cut into segments, several that are short of 64 elements make a piece of 256.
struct Pieces {
  explicit Pieces(const View& view)
      : view(view),
        segments(ceil_div(view.inner, kPiece)),
        runs(view.inner >= 64 ? 1 : std::clamp<int64_t>(256 / view.inner, 1, view.outer)),
        together(std::clamp<int64_t>(kTogether / view.inner, 1, view.channels)) {}

  Piece piece(int64_t row, int64_t channel, int64_t part) const {
    const int64_t stride = view.channels * view.inner, first = part * kPiece;
    const int64_t start = row * runs * stride + channel * view.inner + first;
    if (segments > 1) return {start, kPiece, stride, std::min(kPiece, view.inner - first)};
    return {start, view.inner, stride, std::min(runs, view.outer - row * runs) * view.inner};
  }

  // The partial results of a channel lie side by side.
  int64_t first_of(int64_t channel) const { return channel * down() * segments; }
  int64_t partials() const { return first_of(view.channels); }
  int64_t largest() const { return segments > 1 ? kPiece : runs * view.inner; }
  int64_t groups() const { return ceil_div(view.channels, together); }
  int64_t down() const { return ceil_div(view.outer, runs); }

  View view;
  int64_t segments, runs, together;  // together: channels of a group
};

template <class F>
void each_partial(const Pieces& plan, int64_t channel, const F& body) {
  for (int64_t i = plan.first_of(channel); i < plan.first_of(channel + 1); ++i) body(i);
}

// The pieces of some rows and channels, in the order of memory.
struct PieceRange {
  // body(index, channel, piece, number among these)
  template <class F>
  DAQAKD_INLINE void each(const F& body) const {
    int64_t number = 0;
    for (int64_t row = top; row < bottom; ++row)
      for (int64_t channel = left; channel < right; ++channel)
        for (int64_t part = 0; part < plan->segments; ++part)
          body(
              plan->first_of(channel) + row * plan->segments + part, channel,
              plan->piece(row, channel, part), number++);
  }
  int64_t count() const { return (bottom - top) * (right - left) * plan->segments; }

  // body(range) for the rows, each in ranges of a few channels that stay in the cache.
  template <class F>
  void each_part(const F& body) const {
    for (int64_t row = top; row < bottom; ++row)
      for (int64_t first = left; first < right; first += plan->together)
        body(PieceRange{plan, row, row + 1, first, std::min(right, first + plan->together)});
  }

  // body(first element, count) for those that are neighbours in memory, channel after channel.
  template <class F>
  void each_stretch(const F& body) const {
    const View& view = plan->view;
    for (int64_t at = top * plan->runs; at < std::min(bottom * plan->runs, view.outer); ++at)
      body((at * view.channels + left) * view.inner, (right - left) * view.inner);
  }

  const Pieces* plan;
  int64_t top, bottom, left, right;
};

// collect(range, scratch) for the pieces of some channels, finish(channel) once they are collected,
// then apply with the arguments of collect. A few channels at a time, side by side in memory, stay
// in the cache, where there are enough such groups for all threads. A piece has `capacity` numbers
// of scratch.
template <class C, class A, class F, class B>
void pass_over(
    const Pieces& plan, int64_t capacity, const A& collect, const F& finish, const B& apply) {
  const int64_t channels = plan.view.channels, groups = plan.groups(), down = plan.down();
  const int64_t threads = torch::stable::get_num_threads();
  if (groups % threads == 0 || groups >= 4 * threads)
    return parallel(groups, plan.view.numel() / groups, [&](int64_t begin, int64_t end) {
      const std::unique_ptr<C[]> scratch(new C[down * plan.together * plan.segments * capacity]);
      for (int64_t group = begin; group < end; ++group) {
        const int64_t left = group * plan.together,
                      right = std::min(channels, left + plan.together);
        const PieceRange range{&plan, 0, down, left, right};
        collect(range, scratch.get());
        for (int64_t channel = left; channel < right; ++channel) finish(channel);
        apply(range, scratch.get());
      }
    });
  const std::unique_ptr<C[]> scratch(new C[plan.partials() * capacity]);
  const auto every = [&](const auto& body) {
    parallel(down * channels, plan.segments * plan.largest(), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end;) {
        const int64_t row = i / channels, left = i % channels;
        const int64_t right = std::min(channels, left + end - i);
        body(
            PieceRange{&plan, row, row + 1, left, right},
            scratch.get() + i * plan.segments * capacity);
        i += right - left;
      }
    });
  };
  every(collect);
  for (int64_t channel = 0; channel < channels; ++channel) finish(channel);
  every(apply);
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

// The norm of element i: one for all of a piece, or one for each channel or column.
template <class C>
struct OneNorm {
  DAQAKD_INLINE const Norm<C>& operator()(int64_t) const { return norm; }
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
  EachNorm<C> each() const { return {(*this)[0], (*this)[1], (*this)[2]}; }
};

// Kinds of channel values, one for each column of a tile.
template <class C, int kKinds>
struct TileValues {
  TileValues(const Columns& plan, const ChannelValues<C>& values, int64_t left, int64_t columns) {
    for (int kind = 0; kind < kKinds; ++kind) plan.spread(values[kind], left, columns, of[kind]);
  }
  C of[kKinds][kTileColumns];
};

}  // namespace daqakd::cpu
