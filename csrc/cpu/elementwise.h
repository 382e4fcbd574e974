#pragma once

#include <algorithm>
#include <memory>

#include "../formulas/elementwise.h"
#include "element.h"
#include "mask.h"
#include "partition.h"
#include "simd.h"

// The loops of the ops that formulas/elementwise.h describes.
namespace daqakd::cpu {

// The parameter of element i, prepared: one for all, or one each.
template <class P>
struct OneParameter {
  DAQAKD_INLINE const P& operator()(int64_t) const { return value; }
  P value;
};
template <class Op, class C>
struct EachParameter {
  DAQAKD_INLINE auto operator()(int64_t i) const { return op->prepare(values[i]); }
  const Op* op;
  const C* __restrict__ values;
};

template <class T, class Op, class Parameters>
struct MapBody {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      const T* x, T* y, uint8_t* codes, int64_t n, Parameters p, const Op* op) {
    C from[kBlock], to[kBlock];
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      const C* __restrict__ wide = widen(x + first, count, from);
      C* __restrict__ out = target(y + first, to);
      for (int64_t i = 0; i < count; ++i) out[i] = op->value(wide[i], p(first + i));
      if constexpr (Op::kBits > 0) {
        uint8_t* __restrict__ code = codes + first;
        for (int64_t i = 0; i < count; ++i) code[i] = op->code(wide[i], p(first + i));
      }
      narrow(out, count, y + first);
    }
  }
};

// y and the mask of the elements from `first` to `last`, a row of one channel, or of the table, at
// a time. Segments are cut flat, so that no two of them share a byte of the mask.
template <class T, class Op>
void map(
    const View& view, const T* x, const Compute<T>* parameter, T* y, uint8_t* mask, const Op& op) {
  using C = Compute<T>;
  using Parameter = decltype(op.prepare(C()));
  const ParameterRows<C> rows(view, parameter);
  parallel(ceil_div(view.numel(), kSegment), kSegment, [&](int64_t begin, int64_t end) {
    uint8_t codes[Op::kBits > 0 ? kSegment : 1];
    for (int64_t segment = begin; segment < end; ++segment) {
      const int64_t first = segment * kSegment, last = std::min(view.numel(), first + kSegment);
      rows.each(first, last, [&](int64_t at, int64_t n, const C* values, bool same) {
        uint8_t* to = Op::kBits > 0 ? codes + (at - first) : codes;
        if (same)
          run<MapBody<T, Op, OneParameter<Parameter>>>(
              x + at, y + at, to, n, OneParameter<Parameter>{op.prepare(*values)}, &op);
        else
          run<MapBody<T, Op, EachParameter<Op, C>>>(
              x + at, y + at, to, n, EachParameter<Op, C>{&op, values}, &op);
      });
      if constexpr (Op::kBits > 0)
        run<PackMask<Op::kBits>>(
            static_cast<const uint8_t*>(codes), last - first, mask + first * Op::kBits / 8);
    }
  });
}

}  // namespace daqakd::cpu
