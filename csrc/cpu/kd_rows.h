#pragma once

#include <limits>

#include "../common/element.h"
#include "../common/simd.h"
#include "../formulas/kd_loss.h"
#include "partition.h"

// The loss of rows of logits, and its gradient.
namespace daqakd::cpu {

constexpr int64_t kGroup = 16;         // rows whose logarithms are taken side by side
constexpr int64_t kNarrowRow = 128;    // wider rows are groups of one, to stay in the cache
constexpr int64_t kWork = 4;           // an element costs this many of an elementwise op's

// Elements of any floating-point type.
struct Elements {
  void* data;
  ScalarType type;
};

template <class C>
struct Batch {
  Elements student, teacher, grad = {};  // [B, C]; no grad: null
  int64_t rows, classes, ignore;
  KDSettings<C> settings;
  C smoothing, hard;                     // hard: see kd_row
  const int64_t* labels = nullptr;       // [B], or null
  const C* weights = nullptr;            // [B, C], or null
  C *ce = nullptr, *kl = nullptr;        // [B], or null
  const C* upstream = nullptr;           // multiplies grad: [B] or []; null for 1
  int64_t upstream_stride = 0;
  C scale = 1;
};

enum class Target { none, label, weights };

template <class T, class C>
DAQAKD_INLINE void read_as(const void* from, int64_t at, int64_t n, C* __restrict__ to) {
  const T* __restrict__ x = static_cast<const T*>(from) + at;
  for (int64_t i = 0; i < n; ++i) to[i] = C(load(x[i]));
}

template <class C>
DAQAKD_INLINE void read(const Elements& from, int64_t at, int64_t n, C* __restrict__ to) {
  switch (from.type) {
    case ScalarType::Half:
      return read_as<Half>(from.data, at, n, to);
    case ScalarType::BFloat16:
      return read_as<BFloat16>(from.data, at, n, to);
    case ScalarType::Double:
      return read_as<double>(from.data, at, n, to);
    default:
      return read_as<float>(from.data, at, n, to);
  }
}

template <class T>
DAQAKD_INLINE void write_as(const Compute<T>* __restrict__ x, int64_t at, int64_t n, void* to) {
  T* __restrict__ y = static_cast<T*>(to) + at;
  for (int64_t i = 0; i < n; ++i) y[i] = store<T>(x[i]);
}

DAQAKD_INLINE void write(const double* x, int64_t at, int64_t n, const Elements& to) {
  write_as<double>(x, at, n, to.data);
}

DAQAKD_INLINE void write(const float* x, int64_t at, int64_t n, const Elements& to) {
  if (to.type == ScalarType::Half) return write_as<Half>(x, at, n, to.data);
  if (to.type == ScalarType::BFloat16) return write_as<BFloat16>(x, at, n, to.data);
  write_as<float>(x, at, n, to.data);
}

template <class C>
DAQAKD_INLINE C largest(const C* __restrict__ x, int64_t n) {  // [n]; n is a multiple of 16
  C lanes[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = x[lane];
  for (int64_t i = kLanes; i < n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      lanes[lane] = x[i + lane] > lanes[lane] ? x[i + lane] : lanes[lane];
  for (int width = kLanes / 2; width > 0; width /= 2)
    for (int lane = 0; lane < width; ++lane)
      lanes[lane] = lanes[lane + width] > lanes[lane] ? lanes[lane + width] : lanes[lane];
  return lanes[0];
}

// A row of logits relative to its largest one, filled up to whole lanes with classes ruled out.
template <class C>
DAQAKD_INLINE void read_logits(
    const Elements& from, int64_t row, int64_t classes, int64_t padded, C* __restrict__ z) {
  read(from, row * classes, classes, z);
  for (int64_t i = classes; i < padded; ++i) z[i] = -std::numeric_limits<C>::infinity();
  const C top = largest(z, padded);
  for (int64_t i = 0; i < padded; ++i) z[i] -= top;
}

// Sums of kSums terms per element: lanes of blocks, so that long rows keep their digits.
template <int kSums, class C, class F>
DAQAKD_INLINE void sum_row(int64_t n, C (&sums)[kSums], const F& terms) {
  C total[kSums][kLanes] = {};
  for (int64_t first = 0; first < n; first += kBlock) {
    C part[kSums][kLanes] = {};
    const int64_t last = std::min<int64_t>(n, first + kBlock);
    for (int64_t i = first; i < last; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) {
        C term[kSums];
        terms(i + lane, term);
        for (int k = 0; k < kSums; ++k) part[k][lane] += term[k];
      }
    for (int k = 0; k < kSums; ++k)
      for (int lane = 0; lane < kLanes; ++lane) total[k][lane] += part[k][lane];
  }
  for (int k = 0; k < kSums; ++k) sums[k] = add_lanes(total[k]);
}

// Replaces z and t by e^(z / T) and e^(t / T), and writes e^z.
template <class C>
DAQAKD_INLINE KDSums<C> exponentials(
    C* __restrict__ z, C* __restrict__ t, C* __restrict__ hard, int64_t padded, C inverse) {
  C sums[4];
  sum_row(padded, sums, [=](int64_t i, C(&term)[4]) __attribute__((always_inline)) {
    const C zi = z[i], ti = t[i];
    const KDClass<C> e = kd_class(zi, ti, inverse);
    hard[i] = term[0] = e.hard;
    z[i] = term[1] = e.soft;
    t[i] = term[2] = e.teacher;
    term[3] = kd_cross(e.teacher, zi, ti, inverse);
  });
  return {sums[0], sums[1], sums[2], sums[3]};
}

// The row's target as weights, zero for an ignored row.
template <class C>
DAQAKD_INLINE void fill_weights(
    const Batch<C>& batch, int64_t row, int64_t padded, C* __restrict__ w) {
  const int64_t classes = batch.classes;
  const bool counts = batch.weights || batch.labels[row] != batch.ignore;
  const C keep = C(1) - batch.smoothing, even = counts ? batch.smoothing / C(classes) : C(0);
  if (batch.weights) {
    const C* __restrict__ given = batch.weights + row * classes;
    for (int64_t i = 0; i < classes; ++i) w[i] = given[i] * keep + even;
  } else {
    for (int64_t i = 0; i < classes; ++i) w[i] = even;
    if (counts) w[batch.labels[row]] += keep;
  }
  for (int64_t i = classes; i < padded; ++i) w[i] = C(0);
}

template <Target kTarget, class C>
DAQAKD_INLINE KDTarget<C> target_of(
    const Batch<C>& batch, int64_t row, int64_t padded, const C* __restrict__ z,
    C* __restrict__ w) {
  if constexpr (kTarget == Target::none) return {C(0), C(0)};
  if constexpr (kTarget == Target::label) {
    const int64_t y = batch.labels[row];
    return y == batch.ignore ? KDTarget<C>{C(0), C(0)} : KDTarget<C>{C(1), z[y]};
  }
  fill_weights(batch, row, padded, w);
  C sums[2];
  sum_row(padded, sums, [=](int64_t i, C(&term)[2]) __attribute__((always_inline)) {
    term[0] = w[i];
    term[1] = kd_weighted(w[i], z[i]);
  });
  return {sums[0], sums[1]};
}

// Turns e^z into the gradient of the row and stores it.
template <Target kTarget, class C>
DAQAKD_INLINE void write_gradient(
    const Batch<C>& batch, int64_t row, int64_t padded, const KDRow<C>& found,
    C* __restrict__ hard, const C* __restrict__ soft, const C* __restrict__ teacher,
    const C* __restrict__ w) {
  for (int64_t i = 0; i < padded; ++i) {
    const C rest = kTarget == Target::weights ? found.target * w[i] : C(0);
    hard[i] = kd_gradient(KDClass<C>{hard[i], soft[i], teacher[i]}, found) - rest;
  }
  if (kTarget == Target::label && batch.labels[row] != batch.ignore)
    hard[batch.labels[row]] -= found.target;
  if (batch.upstream) {
    const C factor = batch.upstream[row * batch.upstream_stride] * batch.scale;
    for (int64_t i = 0; i < padded; ++i) hard[i] *= factor;
  }
  write(hard, row * batch.classes, batch.classes, batch.grad);
}

template <class C, Target kTarget>
struct RowsBody {
  // Rows from `first`, at most kGroup of them; scratch [4, count, padded].
  DAQAKD_INLINE static void group(
      const Batch<C>& batch, int64_t first, int64_t count, int64_t padded, C* scratch) {
    C *hard = scratch, *soft = hard + count * padded, *teacher = soft + count * padded;
    C* weights = teacher + count * padded;
    C sums[6][kGroup], rows[6][kGroup];
    for (auto& sum : sums) std::fill_n(sum, kGroup, C(1));
    const C inverse = C(1) / batch.settings.temperature;
    for (int64_t r = 0; r < count; ++r) {
      C *z = soft + r * padded, *t = teacher + r * padded;
      read_logits(batch.student, first + r, batch.classes, padded, z);
      read_logits(batch.teacher, first + r, batch.classes, padded, t);
      const auto target = target_of<kTarget>(batch, first + r, padded, z, weights + r * padded);
      const auto sum = exponentials(z, t, hard + r * padded, padded, inverse);
      const C all[6] = {sum.hard, sum.soft, sum.teacher, sum.cross, target.weight, target.logit};
      for (int k = 0; k < 6; ++k) sums[k][r] = all[k];
    }
    for (int64_t r = 0; r < kGroup; ++r) {
      const KDSums<C> sum{sums[0][r], sums[1][r], sums[2][r], sums[3][r]};
      const auto row = kd_row(
          sum, KDTarget<C>{sums[4][r], sums[5][r]}, batch.hard, batch.settings);
      rows[0][r] = row.ce, rows[1][r] = row.kl, rows[2][r] = row.hard;
      rows[3][r] = row.soft, rows[4][r] = row.teacher, rows[5][r] = row.target;
    }
    if (batch.ce) std::copy_n(rows[0], count, batch.ce + first);
    if (batch.kl) std::copy_n(rows[1], count, batch.kl + first);
    if (!batch.grad.data) return;
    for (int64_t r = 0; r < count; ++r) {
      const KDRow<C> row{rows[0][r], rows[1][r], rows[2][r], rows[3][r], rows[4][r], rows[5][r]};
      write_gradient<kTarget>(
          batch, first + r, padded, row, hard + r * padded, soft + r * padded,
          teacher + r * padded, weights + r * padded);
    }
  }

  DAQAKD_INLINE static void run(
      const Batch<C>* batch, int64_t first, int64_t last, int64_t size, int64_t padded,
      C* scratch) {
    for (int64_t row = first; row < last; row += size)
      group(*batch, row, std::min(size, last - row), padded, scratch);
  }
};

}  // namespace daqakd::cpu
