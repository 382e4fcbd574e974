#include "../formulas/dorefa.h"

#include <algorithm>

#include "../common/check.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"
#include "many.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct None {};

template <class C>
struct Weight {
  static constexpr int kBits = 0;

  DAQAKD_INLINE DoReFaWeights<C> prepare(C maximum) const { return {maximum, bits}; }
  DAQAKD_INLINE C value(C w, const DoReFaWeights<C>& all) const { return dorefa_weight(w, all); }

  int64_t bits;
};

template <class C>
struct WeightBackward {
  static constexpr int kSums = 0;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE Divisor<C> prepare(C maximum) const { return Divisor<C>(maximum); }
  DAQAKD_INLINE Shares<C, 0> gradient(C g, C w, const Divisor<C>& maximum) const {
    return {dorefa_weight_gradient(g, w, maximum, share), {}};
  }

  C share;
};

// sum(g * tanh(w)), and how many weights are the largest.
template <class C>
struct MaximumGradient {
  static constexpr int kSums = 2;
  static constexpr bool kHasDx = false;

  DAQAKD_INLINE C prepare(C maximum) const { return maximum; }
  DAQAKD_INLINE Shares<C, 2> gradient(C g, C w, C maximum) const {
    const C t = tanh_of(w);
    return {C(0), {g * t, std::fabs(t) == maximum ? C(1) : C(0)}};
  }
};

template <class C>
struct Binary {
  static constexpr int kBits = 0;

  DAQAKD_INLINE C prepare(C scale) const { return scale; }
  DAQAKD_INLINE C value(C w, C scale) const { return dorefa_binary(w, scale); }
};

template <class C>
struct BinaryBackward {
  static constexpr int kSums = 0;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE C prepare(C share) const { return share; }
  DAQAKD_INLINE Shares<C, 0> gradient(C g, C w, C share) const {
    return {g + dorefa_binary(w, share), {}};
  }
};

// sum(g * sign(w)); with g = w it is sum|w|.
template <class C>
struct SignedSum {
  static constexpr int kSums = 1;
  static constexpr bool kHasDx = false;

  DAQAKD_INLINE None<C> prepare(C) const { return {}; }
  DAQAKD_INLINE Shares<C, 1> gradient(C g, C w, None<C>) const {
    return {C(0), {dorefa_binary(w, g)}};
  }
};

// Bits of |w| are ordered like |w|, with NaN above everything.
template <class C>
using Bits = std::conditional_t<sizeof(C) == 8, uint64_t, uint32_t>;

template <class T>
struct LargestBody {
  using C = Compute<T>;

  DAQAKD_INLINE static Bits<C> run(const T* w, int64_t n) {
    C buffer[kBlock];
    Bits<C> largest = 0;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      const C* __restrict__ wide = widen(w + first, count, buffer);
      for (int64_t i = 0; i < count; ++i)
        largest = std::max<Bits<C>>(largest, bits_as<Bits<C>>(wide[i]) & ~Bits<C>(0) >> 1);
    }
    return largest;
  }
};

// max|tanh(w)| = tanh(max|w|): no second tanh, and the largest weight equals it exactly.
template <class T>
Compute<T> largest_tanh(const T* w, int64_t numel) {
  using C = Compute<T>;
  const int64_t pieces = ceil_div(numel, kPiece);
  std::unique_ptr<Bits<C>[]> found(new Bits<C>[pieces]);
  parallel(pieces, kPiece, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      found[i] = run<LargestBody<T>>(w + i * kPiece, std::min(kPiece, numel - i * kPiece));
  });
  return tanh_of(bits_as<C>(*std::max_element(found.get(), found.get() + pieces)));
}

template <class T>
Compute<T> signed_mean(const View& view, const T* g, const T* w) {
  using C = Compute<T>;
  const C unused = 0;
  C mean;
  backward<T>(
      view, g, Values<T>{w}, &unused, static_cast<T*>(nullptr), {&mean},
      1.0 / double(view.numel()), SignedSum<C>{});
  return mean;
}

template <class T>
Compute<T> share_of_maximum(
    const View& view, const T* g, const T* w, Compute<T> maximum) {
  using C = Compute<T>;
  C sum, count;
  backward<T>(
      view, g, Values<T>{w}, &maximum, static_cast<T*>(nullptr), {&sum, &count}, 1.0,
      MaximumGradient<C>{});
  return -sum / (maximum * maximum) / count;
}

template <class T>
void forward_of(const Tensor& w, int64_t bits, const Tensor& y, Compute<T>& all) {
  using C = Compute<T>;
  const View view = view_of(w, std::nullopt);
  const T* from = data<T>(w);
  all = bits == 1 ? signed_mean<T>(view, from, from) : largest_tanh<T>(from, view.numel());
  if (bits == 1)
    map<T>(view, from, &all, mutable_data<T>(y), nullptr, Binary<C>{});
  else
    map<T>(view, from, &all, mutable_data<T>(y), nullptr, Weight<C>{bits});
}

template <class T>
void backward_of(
    const Tensor& grad, const Tensor& w, Compute<T> all, int64_t bits, bool detach_max,
    const Tensor& dw) {
  using C = Compute<T>;
  const View view = view_of(w, std::nullopt);
  const T *from = data<T>(w), *g = data<T>(grad);
  const auto run = [&](const C& parameter, const auto& op) {
    backward<T>(view, g, Values<T>{from}, &parameter, mutable_data<T>(dw), {}, 1.0, op);
  };
  if (bits == 1)
    run(detach_max ? C(0) : signed_mean<T>(view, g, from), BinaryBackward<C>{});
  else
    run(all, WeightBackward<C>{detach_max ? C(0) : share_of_maximum<T>(view, g, from, all)});
}

// maximum: scalars in a row, the i-th of this tensor.
void forward_one(
    const Tensor& w, int64_t bits, const Tensor& y, const Tensor& maximum, int64_t i) {
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    Compute<T>& all = mutable_data<Compute<T>>(maximum)[i];
    if (w.numel() == 0)
      all = 0;
    else
      forward_of<T>(w, bits, y, all);
  });
}

void backward_one(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t i, int64_t bits,
    bool detach_max, const Tensor& dw) {
  if (w.numel() == 0) return;
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    backward_of<T>(grad, w, data<Compute<T>>(maximum)[i], bits, detach_max, dw);
  });
}

}  // namespace

tuple<Tensor, Tensor> dorefa_weight_forward(const Tensor& w, int64_t bits) {
  check_bits(bits, false);
  const Tensor input = dense(w);
  Tensor y = empty_as(input), scale = empty_scalar(w, accumulation_type(w));
  forward_one(input, bits, y, scale, 0);
  return {y, scale};
}

Tensor dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits, bool detach_max) {
  check_same("grad", grad, w);
  check_parameter("maximum", maximum, w, std::nullopt);
  check_bits(bits, false);
  const Tensor input = dense(w), g = in_strides_of(grad, input);
  Tensor dw = empty_as(input);
  backward_one(g, input, as_parameter(maximum, accumulation_type(w)), 0, bits, detach_max, dw);
  return dw;
}

tuple<Tensors, Tensor> dorefa_weight_many_forward(Tensors w, Integers bits) {
  const int64_t count = check_some(w);
  check_lengths(w.size(), {bits.size()});
  Tensors y;
  for (size_t i = 0; i < w.size(); ++i) {
    check_bits(bits[i], false);
    w[i] = dense(w[i]);
    y.push_back(empty_as(w[i]));
  }
  const Tensor maximum = empty(w[0], &count, 1, accumulation_type(w[0]));
  each_tensor(w, [&](int64_t i) { forward_one(w[i], bits[i], y[i], maximum, i); });
  return {y, maximum};
}

Tensors dorefa_weight_many_backward(
    Tensors grad, Tensors w, const Tensor& maximum, Integers bits, bool detach_max) {
  check_some(w);
  check_lengths(w.size(), {grad.size(), bits.size(), size_t(maximum.numel())});
  const Tensor all = as_parameter(maximum, accumulation_type(w[0]));
  Tensors dw;
  for (size_t i = 0; i < w.size(); ++i) {
    check_same("grad", grad[i], w[i]);
    check_bits(bits[i], false);
    w[i] = dense(w[i]);
    grad[i] = in_strides_of(grad[i], w[i]);
    dw.push_back(empty_as(w[i]));
  }
  each_tensor(w, [&](int64_t i) { backward_one(grad[i], w[i], all, i, bits[i], detach_max, dw[i]); });
  return dw;
}

}  // namespace daqakd::cpu
