#include "../formulas/lsq.h"

#include <algorithm>

#include "../common/check.h"
#include "../common/element.h"
#include "../common/simd.h"
#include "../ops.h"
#include "dispatch.h"
#include "partition.h"

namespace daqakd::cpu {
namespace {

// The step of element i: one for all, or one each.
template <class C>
struct Same {
  DAQAKD_INLINE Step<C> operator()(int64_t) const { return step; }
  Step<C> step;
};
template <class C>
struct Each {
  DAQAKD_INLINE Step<C> operator()(int64_t i) const { return Step(steps[i]); }
  const C* __restrict__ steps;
};

template <class T, class Steps>
struct Forward {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(const T* x, T* y, int64_t n, Steps s, LSQRange<C> range) {
    C from[kBlock], to[kBlock];
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      const C* __restrict__ wide = widen(x + first, count, from);
      C* __restrict__ out = target(y + first, to);
      for (int64_t i = 0; i < count; ++i) out[i] = lsq_quantize(wide[i], s(first + i), range);
      narrow(out, count, y + first);
    }
  }
};

template <class T, class Steps, class Sums>
struct Backward {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      const T* g, const T* x, T* dx, int64_t n, Steps s, Sums sums, LSQRange<C> range) {
    C grads[kBlock], values[kBlock], to[kBlock];
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t count = std::min<int64_t>(kBlock, n - first);
      C* out = target(dx + first, to);
      block(widen(g + first, count, grads), widen(x + first, count, values), out, first, count, s,
            sums, range);
      narrow(out, count, dx + first);
    }
  }

  DAQAKD_INLINE static C one(C g, C x, C& dx, const Step<C>& s, const LSQRange<C>& range) {
    const LSQGradient<C> gradient = lsq_gradient(g, x, s, range);
    dx = gradient.dx;
    return gradient.ds;
  }

  DAQAKD_INLINE static void block(
      const C* __restrict__ g, const C* __restrict__ x, C* __restrict__ dx, int64_t first,
      int64_t n, const Steps& s, const Sums& sums, const LSQRange<C>& range) {
    if constexpr (Sums::kPerElement) {
      for (int64_t i = 0; i < n; ++i)
        sums.of[first + i] += one(g[i], x[i], dx[i], s(first + i), range);
    } else {
      C lanes[kLanes];
      for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = sums.of[lane];
      const int64_t whole = n / kLanes * kLanes;
      for (int64_t i = 0; i < whole; i += kLanes)
        for (int lane = 0; lane < kLanes; ++lane)
          lanes[lane] += one(g[i + lane], x[i + lane], dx[i + lane], s(0), range);
      for (int64_t i = whole; i < n; ++i)
        lanes[i - whole] += one(g[i], x[i], dx[i], s(0), range);
      for (int lane = 0; lane < kLanes; ++lane) sums.of[lane] = lanes[lane];
    }
  }
};

// Where the shares of ds go: 16 lanes for all elements, or a sum for each.
template <class C>
struct Lanes {
  static constexpr bool kPerElement = false;
  C* of;  // [16]
};
template <class C>
struct PerElement {
  static constexpr bool kPerElement = true;
  C* __restrict__ of;  // [n]
};

template <class T>
void forward(
    const View& view, const T* x, const Compute<T>* step, T* y, LSQRange<Compute<T>> range) {
  using C = Compute<T>;
  if (!is_narrow(view))
    return Rows(view).each([&](int64_t, int64_t channel, int64_t first, int64_t n) {
      run<Forward<T, Same<C>>>(x + first, y + first, n, Same<C>{Step(step[channel])}, range);
    });
  const Columns plan(view);
  plan.each([&](int64_t, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
    C s[kAcross];
    plan.spread(step, left, columns, s);
    for (int64_t row = top; row < bottom; ++row) {
      const int64_t first = row * plan.width + left, n = std::min(columns, view.numel() - first);
      run<Forward<T, Each<C>>>(x + first, y + first, n, Each<C>{s}, range);
    }
  });
}

template <class T>
void backward_rows(
    const Rows& plan, const T* g, const T* x, const Compute<T>* step, T* dx, Compute<T>* partials,
    LSQRange<Compute<T>> range) {
  using C = Compute<T>;
  plan.each([&](int64_t unit, int64_t channel, int64_t first, int64_t n) {
    C lanes[kLanes] = {};
    run<Backward<T, Same<C>, Lanes<C>>>(
        g + first, x + first, dx + first, n, Same<C>{Step(step[channel])}, Lanes<C>{lanes}, range);
    partials[unit] = add_lanes(lanes);
  });
}

template <class T>
void backward_columns(
    const Columns& plan, const T* g, const T* x, const Compute<T>* step, T* dx,
    Compute<T>* partials, LSQRange<Compute<T>> range) {
  using C = Compute<T>;
  plan.each([&](int64_t tile, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
    C s[kAcross], sum[kAcross] = {};
    plan.spread(step, left, columns, s);
    for (int64_t row = top; row < bottom; ++row) {
      const int64_t first = row * plan.width + left, n = std::min(columns, plan.view.numel() - first);
      run<Backward<T, Each<C>, PerElement<C>>>(
          g + first, x + first, dx + first, n, Each<C>{s}, PerElement<C>{sum}, range);
    }
    std::copy_n(sum, columns, partials + tile * plan.width + left);
  });
}

template <class T>
void backward(
    const View& view, const T* g, const T* x, const Compute<T>* step, T* dx, Compute<T>* ds,
    LSQRange<Compute<T>> range, double scale) {
  const auto with = [&](const auto& plan, auto& body) {
    std::unique_ptr<Compute<T>[]> partials(new Compute<T>[plan.down() * plan.across()]);
    body(plan, g, x, step, dx, partials.get(), range);
    sum_partials(plan, partials.get(), scale, ds);
  };
  if (is_narrow(view))
    with(Columns(view), backward_columns<T>);
  else
    with(Rows(view), backward_rows<T>);
}

}  // namespace

Tensor lsq_forward(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, std::optional<int64_t> axis) {
  check_parameter("step", step, x, axis);
  const Tensor input = dense(x), steps = as_parameter(step, accumulation_type(x));
  Tensor y = empty_as(input);
  if (x.numel() == 0) return y;
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    forward<T>(
        view_of(input, axis), data<T>(input), data<Compute<T>>(steps), mutable_data<T>(y),
        lsq_range<Compute<T>>(qmin, qmax, STE::closed));
  });
  return y;
}

std::tuple<Tensor, Tensor> lsq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax,
    std::optional<int64_t> axis, int64_t ste, double grad_scale) {
  check_parameter("step", step, x, axis);
  check_same("grad", grad, x);
  const Tensor input = dense(x), g = in_strides_of(grad, input);
  const Tensor steps = as_parameter(step, accumulation_type(x));
  Tensor dx = empty_as(input), ds = empty_contiguous(step, accumulation_type(x));
  if (x.numel() == 0) return {dx, torch::stable::zero_(ds)};
  by_dtype(x, [&](auto element) {
    using T = decltype(element);
    backward<T>(
        view_of(input, axis), data<T>(g), data<T>(input), data<Compute<T>>(steps),
        mutable_data<T>(dx), mutable_data<Compute<T>>(ds),
        lsq_range<Compute<T>>(qmin, qmax, STE(ste)), grad_scale);
  });
  return {dx, ds};
}

}  // namespace daqakd::cpu
