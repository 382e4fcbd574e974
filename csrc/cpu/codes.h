#pragma once

#include "../formulas/codes.h"

#include "../common/arguments.h"
#include "element.h"
#include "mask.h"
#include "partition.h"
#include "simd.h"

// How values become packed codes.
namespace daqakd::cpu {

template <class C>
CodeGrid<C> grid_of(
    const optional<Tensor>& parameter, int64_t method, int64_t bits, bool is_signed) {
  const CodeRange<C> range(Method(method), bits, is_signed);
  if (!parameter) return {C(1), range};
  constexpr ScalarType type = sizeof(C) == 8 ? ScalarType::Double : ScalarType::Float;
  const Tensor value = as_parameter(*parameter, type);
  return {*data<C>(value), range};
}

// Calls body with the bits of a slot as a constant.
template <class F>
void by_slot(int slot, const F& body) {
  if (slot == 1) return body(std::integral_constant<int, 1>());
  if (slot == 2) return body(std::integral_constant<int, 2>());
  if (slot == 4) return body(std::integral_constant<int, 4>());
  body(std::integral_constant<int, 8>());
}

// body(first element, count) for segments, which begin with a byte of the codes.
template <class F>
void each_segment(int64_t numel, const F& body) {
  parallel(ceil_div(numel, kSegment), kSegment, [&](int64_t begin, int64_t end) {
    for (int64_t first = begin * kSegment; first < std::min(numel, end * kSegment);
         first += kSegment)
      body(first, std::min(numel - first, kSegment));
  });
}

// Values as a tensor of T holds them; converting loops alone vectorize.
template <class T, class C>
DAQAKD_INLINE void round_to(C* __restrict__ values, int64_t n) {
  T stored[kBlock];
  narrow(values, n, stored);
  for (int64_t i = 0; i < n; ++i) values[i] = load(stored[i]);
}

template <class T>
struct FindCodes {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(const T* y, int64_t n, const CodeGrid<C>* grid, uint8_t* codes) {
    C buffer[kBlock], found[kBlock];
    const CodeGrid<C> own = *grid;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      const C* __restrict__ wide = widen(y + first, count, buffer);
      for (int64_t i = 0; i < count; ++i) found[i] = own.nearest(wide[i]);
      if constexpr (!std::is_same_v<T, C>)
        if (own.is_dense()) settle(wide, own, count, found);
      uint8_t* __restrict__ out = codes + first;
      for (int64_t i = 0; i < count; ++i) out[i] = uint8_t(int32_t(found[i]));
    }
  }

  DAQAKD_INLINE static void settle(
      const C* __restrict__ y, const CodeGrid<C>& grid, int64_t n, C* __restrict__ codes) {
    C value[kBlock], other[kBlock], other_value[kBlock];
    for (int64_t i = 0; i < n; ++i) value[i] = grid.value(codes[i]);
    round_to<T>(value, n);
    for (int64_t i = 0; i < n; ++i) {
      other[i] = grid.beyond(codes[i], value[i], y[i]);
      other_value[i] = grid.value(other[i]);
    }
    round_to<T>(other_value, n);
    for (int64_t i = 0; i < n; ++i)
      codes[i] = code_of(y[i], codes[i], value[i], other[i], other_value[i]);
  }
};

// Packs the codes of values, from bytes of their own on.
template <class T>
struct CodePacker {
  // Of values within a tensor.
  void pack(int64_t first, int64_t n) const {
    by_slot(slot, [&](auto bits) {
      uint8_t buffer[kSegment];
      for (const int64_t end = first + n; first < end; first += kSegment) {
        const int64_t count = std::min(kSegment, end - first);
        run<FindCodes<T>>(y + first, count, &grid, +buffer);
        run<PackMask<bits>>(static_cast<const uint8_t*>(buffer), count, codes + first * bits / 8);
      }
    });
  }

  void pack_all(int64_t numel) const {
    each_segment(numel, [&](int64_t first, int64_t n) { pack(first, n); });
  }

  // Whether what follows n values begins with a byte of its own.
  bool is_whole(int64_t n) const { return n * slot % 8 == 0; }

  CodeGrid<Compute<T>> grid;
  int slot;  // bits of a packed code
  const T* y;
  uint8_t* codes;
};

}  // namespace daqakd::cpu
