#pragma once

#include <array>
#include <memory>

#include "elementwise.h"

namespace daqakd::cpu {

// What gradient() sees of an element besides its gradient: the input, or its code in the mask.
template <class T>
struct Values {
  struct Buffer {
    Compute<T> of[kBlock];
  };
  DAQAKD_INLINE const Compute<T>* block(int64_t first, int64_t n, Buffer& buffer) const {
    return widen(x + first, n, buffer.of);
  }
  Values from(int64_t first) const { return {x + first}; }

  const T* x;
};

// As wide as C, so that choices by code vectorize beside the gradient.
template <int kBits, class C>
struct Codes {
  using Wide = std::conditional_t<sizeof(C) == 8, int64_t, int32_t>;
  static constexpr int kPerByte = 8 / kBits;
  struct Buffer {
    uint8_t bytes[kBlock + 2 * kPerByte];
    Wide of[kBlock];
  };
  DAQAKD_INLINE const Wide* block(int64_t first, int64_t n, Buffer& buffer) const {
    const int64_t skipped = (start + first) % kPerByte,
                  bytes = (skipped + n + kPerByte - 1) / kPerByte;
    const uint8_t* __restrict__ packed = mask + (start + first) / kPerByte;
    for (int64_t i = 0; i < bytes; ++i) unpack_byte<kBits>(packed[i], buffer.bytes + i * kPerByte);
    for (int64_t i = 0; i < n; ++i) buffer.of[i] = buffer.bytes[skipped + i];
    return buffer.of;
  }
  Codes from(int64_t first) const { return {mask, start + first}; }

  const uint8_t* mask;
  int64_t start;
};

// Where contributions go: 16 lanes of each sum for all elements, or one sum for each element.
template <class C>
struct Lanes {
  C (*of)[kLanes];  // [kSums, 16]
};
template <class C>
struct PerElement {
  C* __restrict__ of;  // [n]
};

template <class T, class Op, class Source, class Parameters, class Sums>
struct BackwardBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      const T* g, Source source, T* dx, int64_t n, Parameters p, Sums sums, const Op* op) {
    C grads[kBlock], to[kBlock];
    typename Source::Buffer buffer;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      C* out = to;
      if constexpr (Op::kHasDx) out = target(dx + first, to);
      block(
          widen(g + first, count, grads), source.block(first, count, buffer), out, first, count, p,
          sums, op);
      if constexpr (Op::kHasDx) narrow(out, count, dx + first);
    }
  }

  template <class V>
  DAQAKD_INLINE static void block(
      const C* __restrict__ g, const V* __restrict__ v, C* __restrict__ dx, int64_t first,
      int64_t n, const Parameters& p, const Lanes<C>& sums, const Op* op) {
    C lanes[Op::kSums + 1][kLanes];
    std::copy_n(&sums.of[0][0], Op::kSums * kLanes, &lanes[0][0]);
    const auto one = [&](int64_t i, int lane) __attribute__((always_inline)) {
      const auto added = op->gradient(g[i], v[i], p(0));
      if constexpr (Op::kHasDx) dx[i] = added.dx;
      for (int k = 0; k < Op::kSums; ++k) lanes[k][lane] += added.sums[k];
    };
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes) {
      DAQAKD_INDEPENDENT
      for (int lane = 0; lane < kLanes; ++lane) one(i + lane, lane);
    }
    for (int64_t i = whole; i < n; ++i) one(i, int(i - whole));
    std::copy_n(&lanes[0][0], Op::kSums * kLanes, &sums.of[0][0]);
  }

  template <class V>
  DAQAKD_INLINE static void block(
      const C* __restrict__ g, const V* __restrict__ v, C* __restrict__ dx, int64_t first,
      int64_t n, const Parameters& p, const PerElement<C>& sums, const Op* op) {
    for (int64_t i = 0; i < n; ++i) {
      const auto added = op->gradient(g[i], v[i], p(first + i));
      dx[i] = added.dx;
      sums.of[first + i] += added.sums[0];
    }
  }
};

template <class T, class Op, class Parameter, class Source>
void backward_rows(
    const Rows& plan, const T* g, Source source, const Compute<T>* parameter, T* dx,
    Compute<T>* partials, const Op& op) {
  using C = Compute<T>;
  plan.each([&](int64_t task, int64_t channel, int64_t first, int64_t n) {
    C lanes[Op::kSums + 1][kLanes] = {};
    run<BackwardBody<T, Op, Source, OneParameter<Parameter>, Lanes<C>>>(
        g + first, source.from(first), dx + first, n,
        OneParameter<Parameter>{op.prepare(parameter[channel])}, Lanes<C>{lanes}, &op);
    for (int k = 0; k < Op::kSums; ++k)
      partials[k * plan.down() * plan.across() + task] = add_lanes(lanes[k]);
  });
}

template <class T, class Op, class Source>
void backward_columns(
    const Columns& plan, const T* g, Source source, const Compute<T>* parameter, T* dx,
    Compute<T>* partials, const Op& op) {
  using C = Compute<T>;
  plan.each([&](int64_t tile, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
    C values[kTileColumns], sum[kTileColumns] = {};
    plan.spread(parameter, left, columns, values);
    for (int64_t row = top; row < bottom; ++row) {
      const int64_t first = row * plan.width + left;
      run<BackwardBody<T, Op, Source, EachParameter<Op, C>, PerElement<C>>>(
          g + first, source.from(first), dx + first, std::min(columns, plan.view.numel() - first),
          EachParameter<Op, C>{&op, values}, PerElement<C>{sum}, &op);
    }
    std::copy_n(sum, columns, partials + tile * plan.width + left);
  });
}

// dx, and op's sums times `scale` into sums[k], each [channels]; several sums take one channel.
template <class T, class Op, class Source>
void backward(
    const View& view, const T* g, Source source, const Compute<T>* parameter, T* dx,
    std::array<Compute<T>*, Op::kSums> sums, double scale, const Op& op) {
  using C = Compute<T>;
  using Parameter = decltype(op.prepare(C()));
  const auto with = [&](const auto& plan, const auto& body) {
    const int64_t count = plan.down() * plan.across();
    std::unique_ptr<C[]> partials(new C[Op::kSums * count]);
    body(plan, g, source, parameter, dx, partials.get(), op);
    for (int k = 0; k < Op::kSums; ++k)
      sum_partials(plan, partials.get() + k * count, scale, sums[k]);
  };
  if constexpr (Op::kSums == 1 && Op::kHasDx)
    if (is_narrow(view)) return with(Columns(view), backward_columns<T, Op, Source>);
  with(Rows(view), backward_rows<T, Op, Parameter, Source>);
}

}  // namespace daqakd::cpu
