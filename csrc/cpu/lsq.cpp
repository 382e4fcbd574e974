#include "../formulas/lsq.h"

#include "../common/check.h"
#include "../common/element.h"
#include "../common/simd.h"
#include "../ops.h"
#include "dispatch.h"
#include "partition.h"

namespace daqakd::cpu {
namespace {

// One step for n neighbouring elements.
template <class T>
struct ForwardRow {
  DAQAKD_INLINE static void run(
      const T* __restrict__ x, T* __restrict__ y, int64_t n, Step<Compute<T>> s,
      LSQRange<Compute<T>> range) {
    for (int64_t i = 0; i < n; ++i) y[i] = store<T>(lsq_quantize(load(x[i]), s, range));
  }
};

// A step for each of n neighbouring elements.
template <class T>
struct ForwardColumns {
  DAQAKD_INLINE static void run(
      const T* __restrict__ x, T* __restrict__ y, const Compute<T>* __restrict__ s, int64_t n,
      LSQRange<Compute<T>> range) {
    for (int64_t i = 0; i < n; ++i) y[i] = store<T>(lsq_quantize(load(x[i]), Step(s[i]), range));
  }
};

template <class T>
struct BackwardRow {
  using C = Compute<T>;

  DAQAKD_INLINE static C one(C g, C x, T* dx, const Step<C>& s, const LSQRange<C>& range) {
    const LSQGradient<C> gradient = lsq_gradient(g, x, s, range);
    *dx = store<T>(gradient.dx);
    return gradient.ds;
  }

  DAQAKD_INLINE static C run(
      const T* __restrict__ g, const T* __restrict__ x, T* __restrict__ dx, int64_t n, Step<C> s,
      LSQRange<C> range) {
    C sum[kLanes] = {};
    const int64_t whole = n / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane)
        sum[lane] += one(load(g[i + lane]), load(x[i + lane]), dx + i + lane, s, range);
    for (int64_t i = whole; i < n; ++i)
      sum[i - whole] += one(load(g[i]), load(x[i]), dx + i, s, range);
    return add_lanes(sum);
  }
};

template <class T>
struct BackwardColumns {
  using C = Compute<T>;

  DAQAKD_INLINE static void run(
      const T* __restrict__ g, const T* __restrict__ x, T* __restrict__ dx,
      const C* __restrict__ s, C* __restrict__ sum, int64_t n, LSQRange<C> range) {
    for (int64_t i = 0; i < n; ++i)
      sum[i] += BackwardRow<T>::one(load(g[i]), load(x[i]), dx + i, Step(s[i]), range);
  }
};

template <class T>
void forward(
    const View& view, const T* x, const Compute<T>* step, T* y, LSQRange<Compute<T>> range) {
  using C = Compute<T>;
  if (!is_narrow(view))
    return Rows(view).each([&](int64_t, int64_t channel, int64_t first, int64_t n) {
      run<ForwardRow<T>>(x + first, y + first, n, Step(step[channel]), range);
    });
  const Columns plan(view);
  plan.each([&](int64_t, int64_t left, int64_t columns, int64_t top, int64_t bottom) {
    C s[kAcross];
    plan.spread(step, left, columns, s);
    for (int64_t row = top; row < bottom; ++row) {
      const int64_t first = row * plan.width + left, n = std::min(columns, view.numel() - first);
      run<ForwardColumns<T>>(x + first, y + first, static_cast<const C*>(s), n, range);
    }
  });
}

template <class T>
void backward_rows(
    const Rows& plan, const T* g, const T* x, const Compute<T>* step, T* dx, Compute<T>* partials,
    LSQRange<Compute<T>> range) {
  plan.each([&](int64_t unit, int64_t channel, int64_t first, int64_t n) {
    partials[unit] = run<BackwardRow<T>>(
        g + first, x + first, dx + first, n, Step(step[channel]), range);
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
      run<BackwardColumns<T>>(
          g + first, x + first, dx + first, static_cast<const C*>(s), static_cast<C*>(sum), n,
          range);
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
