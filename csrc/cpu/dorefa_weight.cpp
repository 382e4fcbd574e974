#include "../formulas/dorefa.h"

#include <algorithm>

#include "../common/arguments.h"
#include "../ops.h"
#include "backward.h"
#include "dispatch.h"
#include "many.h"

namespace daqakd::cpu {
namespace {

template <class C>
struct TiedWeightBackward : DoReFaWeightBackward<C> {
  DAQAKD_INLINE typename DoReFaWeightBackward<C>::Prepared prepare(C maximum) const {
    return {Divisor<C>(maximum), tie_gradient};
  }

  C tie_gradient;
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
  const int64_t segments = ceil_div(numel, kSegment);
  std::unique_ptr<Bits<C>[]> found(new Bits<C>[segments]);
  parallel(segments, kSegment, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      found[i] = run<LargestBody<T>>(w + i * kSegment, std::min(kSegment, numel - i * kSegment));
  });
  return tanh_of(bits_as<C>(*std::max_element(found.get(), found.get() + segments)));
}

template <class T>
Compute<T> signed_mean(const View& view, const T* g, const T* w) {
  using C = Compute<T>;
  const C unused = 0;
  C mean;
  backward<T>(
      view, g, Values<T>{w}, &unused, static_cast<T*>(nullptr), {&mean}, 1.0 / double(view.numel()),
      DoReFaSignedSum<C>{});
  return mean;
}

template <class T>
Compute<T> tie_gradient_of(const View& view, const T* g, const T* w, Compute<T> maximum) {
  using C = Compute<T>;
  C sum, count;
  backward<T>(
      view, g, Values<T>{w}, &maximum, static_cast<T*>(nullptr), {&sum, &count}, 1.0,
      DoReFaMaximumGradient<C>{});
  return -sum / (maximum * maximum) / count;
}

template <class T>
void forward_of(const Tensor& w, int64_t bits, const Tensor& y, Compute<T>& all) {
  using C = Compute<T>;
  const View view = view_of(w, std::nullopt);
  const T* from = data<T>(w);
  all = bits == 1 ? signed_mean<T>(view, from, from) : largest_tanh<T>(from, view.numel());
  if (bits == 1)
    map<T>(view, from, &all, mutable_data<T>(y), nullptr, DoReFaBinary<C>{});
  else
    map<T>(view, from, &all, mutable_data<T>(y), nullptr, DoReFaWeight<C>{bits});
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
    run(detach_max ? C(0) : signed_mean<T>(view, g, from), DoReFaBinaryBackward<C>{});
  else
    run(all, TiedWeightBackward<C>{{}, detach_max ? C(0) : tie_gradient_of<T>(view, g, from, all)});
}

// maximum [tensors]: element i is this tensor's.
void forward_one(const Tensor& w, int64_t bits, const Tensor& y, const Tensor& maximum, int64_t i) {
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
  check_dorefa_weight(w, bits);
  const Tensor input = dense(w);
  Tensor y = empty_as(input), scale = empty_scalar(w, accumulation_type(w));
  forward_one(input, bits, y, scale, 0);
  return {y, scale};
}

Tensor dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits, bool detach_max) {
  check_dorefa_weight_backward(grad, w, maximum, bits);
  const Tensor input = dense(w), g = in_strides_of(grad, input);
  Tensor dw = empty_as(input);
  backward_one(g, input, as_parameter(maximum, accumulation_type(w)), 0, bits, detach_max, dw);
  return dw;
}

tuple<Tensors, Tensor> dorefa_weight_many_forward(Tensors w, Integers bits) {
  const int64_t count = check_dorefa_weight_many(w, bits);
  Tensors y;
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = dense(w[i]);
    y.push_back(empty_as(w[i]));
  }
  const Tensor maximum = empty(w[0], &count, 1, accumulation_type(w[0]));
  each_tensor(w, [&](int64_t i) { forward_one(w[i], bits[i], y[i], maximum, i); });
  return {y, maximum};
}

Tensors dorefa_weight_many_backward(
    Tensors grad, Tensors w, const Tensor& maximum, Integers bits, bool detach_max) {
  check_dorefa_weight_many_backward(grad, w, maximum, bits);
  const Tensor all = as_parameter(maximum, accumulation_type(w[0]));
  Tensors dw;
  for (size_t i = 0; i < w.size(); ++i) {
    w[i] = dense(w[i]);
    grad[i] = in_strides_of(grad[i], w[i]);
    dw.push_back(empty_as(w[i]));
  }
  each_tensor(
      w, [&](int64_t i) { backward_one(grad[i], w[i], all, i, bits[i], detach_max, dw[i]); });
  return dw;
}

}  // namespace daqakd::cpu
