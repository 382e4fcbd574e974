#include "../formulas/dorefa.h"

#include <limits>

#include "../common/check.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct None {};

template <class C>
struct Activation {
  static constexpr int kBits = 1;

  DAQAKD_INLINE None<C> prepare(C) const { return {}; }
  DAQAKD_INLINE C value(C x, None<C>) const { return dorefa_quantize(x, range); }
  DAQAKD_INLINE uint8_t code(C x, None<C>) const { return dorefa_code(x, range); }

  DoReFaRange<C> range;
};

template <class C>
struct ActivationBackward {
  static constexpr int kSums = 0;
  static constexpr bool kHasDx = true;

  DAQAKD_INLINE None<C> prepare(C) const { return {}; }
  template <class Code>
  DAQAKD_INLINE Shares<C, 0> gradient(C g, Code code, None<C>) const {
    return {code != 0 ? g : C(0), {}};
  }
};

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
      for (int64_t i = 0; i < count; ++i) {
        Bits<C> bits;
        std::memcpy(&bits, wide + i, sizeof bits);
        largest = std::max<Bits<C>>(largest, bits & ~Bits<C>(0) >> 1);
      }
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
  const Bits<C> bits = *std::max_element(found.get(), found.get() + pieces);
  C largest;
  std::memcpy(&largest, &bits, sizeof largest);
  return tanh_of(largest);
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

}  // namespace

std::tuple<Tensor, Tensor> dorefa_activation_forward(
    const Tensor& x, int64_t bits, bool is_signed) {
  check_bits(bits, is_signed);
  const Tensor input = dense(x);
  Tensor y = empty_as(input), mask = empty_mask(x, 1);
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    map<T>(
        view_of(input, std::nullopt), data<T>(input), &unused, mutable_data<T>(y),
        mutable_data<uint8_t>(mask), Activation<C>{DoReFaRange<C>(bits, is_signed)});
  });
  return {y, mask};
}

Tensor dorefa_activation_backward(const Tensor& grad, const Tensor& mask) {
  check_mask(mask, grad, 1);
  const Tensor g = dense(grad);
  Tensor dx = empty_as(g);
  by_dtype(grad, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const C unused = 0;
    backward<T>(
        view_of(g, std::nullopt), data<T>(g), Codes<1, C>{data<uint8_t>(mask), 0}, &unused,
        mutable_data<T>(dx), {}, 1.0, ActivationBackward<C>{});
  });
  return dx;
}

std::tuple<Tensor, Tensor> dorefa_weight_forward(const Tensor& w, int64_t bits) {
  check_bits(bits, false);
  const Tensor input = dense(w);
  Tensor y = empty_as(input), scale = empty_scalar(w, accumulation_type(w));
  if (w.numel() == 0) return {y, torch::stable::zero_(scale)};
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const View view = view_of(input, std::nullopt);
    const T* from = data<T>(input);
    C& all = *mutable_data<C>(scale);
    all = bits == 1 ? signed_mean<T>(view, from, from) : largest_tanh<T>(from, view.numel());
    if (bits == 1)
      map<T>(view, from, &all, mutable_data<T>(y), nullptr, Binary<C>{});
    else
      map<T>(view, from, &all, mutable_data<T>(y), nullptr, Weight<C>{bits});
  });
  return {y, scale};
}

Tensor dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits, bool detach_max) {
  check_same("grad", grad, w);
  check_parameter("maximum", maximum, w, std::nullopt);
  check_bits(bits, false);
  const Tensor input = dense(w), g = in_strides_of(grad, input);
  const Tensor scale = as_parameter(maximum, accumulation_type(w));
  Tensor dw = empty_as(input);
  if (w.numel() == 0) return dw;
  by_dtype(w, [&](auto element) {
    using T = decltype(element);
    using C = Compute<T>;
    const View view = view_of(input, std::nullopt);
    const T *from = data<T>(input), *gradient = data<T>(g);
    const auto run = [&](const C& parameter, const auto& op) {
      backward<T>(
          view, gradient, Values<T>{from}, &parameter, mutable_data<T>(dw), {}, 1.0, op);
    };
    const C all = *data<C>(scale);
    if (bits == 1)
      run(detach_max ? C(0) : signed_mean<T>(view, gradient, from), BinaryBackward<C>{});
    else
      run(all, WeightBackward<C>{
                   detach_max ? C(0) : share_of_maximum<T>(view, gradient, from, all)});
  });
  return dw;
}

}  // namespace daqakd::cpu
