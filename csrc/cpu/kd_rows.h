#pragma once

#include <limits>

#include "../formulas/kd_loss.h"
#include "elements.h"
#include "partition.h"
#include "simd.h"

// The loss of rows of logits, and its gradient. Work goes by blocks of 16 lanes: a lane is a row of
// a block of 16 rows, or, where rows are long, one of 16 parts of the classes of a single row.
namespace daqakd::cpu {

constexpr int64_t kNarrowRow = 64;  // most classes of rows that lie side by side

template <class C>
struct Batch {
  Elements student, teacher, grad = {};  // [B, C]; no grad: null
  int64_t rows, classes, ignore;
  KDSettings<C> settings;
  C smoothing, ce_coefficient;      // see kd_row
  const int64_t* labels = nullptr;  // [B], or null
  const C* weights = nullptr;       // [B, C], or null
  C *ce = nullptr, *kl = nullptr;   // [B], or null
  const C* upstream = nullptr;      // multiplies grad: [B] or []; null for 1
  int64_t upstream_stride = 0;
  C scale = 1;

  // A branch per block costs less than a copy of the block's code for each kind of target.
  bool has_label() const { return labels && !has_weights(); }
  bool has_weights() const { return weights || (labels && smoothing > 0); }
};

template <class C>
DAQAKD_INLINE void largest_lanes(  // [n] -> [16]
    const C* __restrict__ x, int64_t n, C* __restrict__ top) {
  for (int lane = 0; lane < kLanes; ++lane) top[lane] = x[lane];
  for (int64_t i = kLanes; i < n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane)
      top[lane] = x[i + lane] > top[lane] ? x[i + lane] : top[lane];
}

// Blocks first, so that long rows keep their digits.
template <class C>
DAQAKD_INLINE void sum_lanes(  // [n] -> [16]
    const C* __restrict__ x, int64_t n, C* __restrict__ sum) {
  for (int lane = 0; lane < kLanes; ++lane) sum[lane] = C(0);
  for (int64_t first = 0; first < n; first += kBlock) {
    C block_sum[kLanes] = {};
    const int64_t last = std::min<int64_t>(n, first + kBlock);
    for (int64_t i = first; i < last; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) block_sum[lane] += x[i + lane];
    for (int lane = 0; lane < kLanes; ++lane) sum[lane] += block_sum[lane];
  }
}

// z and t become e^(z / T) and e^(t / T), and exp_z and kl_terms are filled.
// kPower is T where that is 1, 2 or 4, else 0.
template <int kPower, class C>
DAQAKD_INLINE void exponentials(
    int64_t n, C inverse, C* __restrict__ z, C* __restrict__ t, C* __restrict__ exp_z,
    C* __restrict__ kl_terms) {  // [n] each
  for (int64_t i = 0; i < n; ++i) {
    const KDExponentials<C> e = kPower == 0 ? kd_exponentials(z[i], t[i], inverse)
                                            : kd_exponentials_by_power<kPower>(z[i], t[i], inverse);
    kl_terms[i] = kd_kl_term(e.exp_t_T, z[i], t[i], inverse);
    exp_z[i] = e.exp_z, z[i] = e.exp_z_T, t[i] = e.exp_t_T;
  }
}

// Of 16 lanes: the sums and the target go into finish(), kd_row's results and scales come out.
template <class C>
struct Lanes16 {
  C exp_z[kLanes], exp_z_T[kLanes], exp_t_T[kLanes], kl_terms[kLanes];
  C weight[kLanes] = {}, logit[kLanes] = {};
  KDCentre<C> centre[kLanes];
  C ce[kLanes], kl[kLanes], target[kLanes];

  DAQAKD_INLINE void finish(C coefficient, const KDSettings<C>& settings) {
    for (int i = 0; i < kLanes; ++i) {
      const KDRow<C> row = kd_row(
          KDSums<C>{exp_z[i], exp_z_T[i], exp_t_T[i], kl_terms[i], centre[i].spread},
          KDTarget<C>{weight[i], logit[i]}, coefficient, settings);
      ce[i] = row.ce, kl[i] = row.kl, target[i] = row.target_scale;
      exp_z[i] = row.exp_z_scale, exp_z_T[i] = row.exp_z_T_scale;
      exp_t_T[i] = row.exp_t_T_scale;
    }
  }
};

// exp_z becomes the gradient, but for the target of a label.
template <class C, bool kWeights>
DAQAKD_INLINE void gradients(
    int64_t n, const Lanes16<C>& row, C* __restrict__ exp_z, const C* __restrict__ exp_z_T,
    const C* __restrict__ exp_t_T, const C* __restrict__ weights) {  // [n] each
  for (int64_t i = 0; i < n; i += kLanes)
    for (int lane = 0; lane < kLanes; ++lane) {
      const KDRow<C> one{
          C(0), C(0), row.exp_z[lane], row.exp_z_T[lane], row.exp_t_T[lane], row.target[lane]};
      const KDExponentials<C> e{exp_z[i + lane], exp_z_T[i + lane], exp_t_T[i + lane]};
      exp_z[i + lane] =
          kd_gradient(e, one) - (kWeights ? one.target_scale * weights[i + lane] : C(0));
    }
}

// One block: `count` rows from `first`. kAcross: lane = row; else one row over all lanes.
template <class C, bool kAcross>
struct Block {
  const Batch<C>& batch;
  int64_t first, count, size;  // size: elements of a buffer, a multiple of 16
  // [size], row [classes]; exp_z becomes the gradient
  C *z, *t, *exp_z, *weights, *row;

  // Where class k of row r stands.
  DAQAKD_INLINE static int64_t at(int64_t r, int64_t k) { return kAcross ? k * kLanes + r : k; }

  // A row as it stands in memory -> its lane of the block.
  DAQAKD_INLINE void spread(int64_t r, C* __restrict__ to) const {
    for (int64_t k = 0; k < batch.classes; ++k) to[at(r, k)] = row[k];
  }

  DAQAKD_INLINE void read_logits(const Elements& from, C* to) const {
    if constexpr (kAcross) {
      if (count < kLanes) std::fill_n(to, size, C(0));
      for (int64_t r = 0; r < count; ++r) {
        read(from, (first + r) * batch.classes, batch.classes, row);
        spread(r, to);
      }
    } else {
      read(from, first * batch.classes, batch.classes, to);
      std::fill(to + batch.classes, to + size, -std::numeric_limits<C>::infinity());
    }
    C top[kLanes];
    largest_lanes(to, size, top);
    if constexpr (!kAcross) std::fill_n(top, kLanes, *std::max_element(top, top + kLanes));
    for (int64_t i = 0; i < size; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) to[i + lane] -= top[lane];
  }

  DAQAKD_INLINE void sum(const C* from, C* lanes) const {
    sum_lanes(from, size, lanes);
    if constexpr (!kAcross) std::fill_n(lanes, kLanes, add_lanes(lanes));
  }

  // A row's target as weights, zero for an ignored one.
  DAQAKD_INLINE void read_weights(int64_t r) const {
    const int64_t classes = batch.classes, from = (first + r) * classes;
    const bool counts = batch.weights || batch.labels[first + r] != batch.ignore;
    const C keep = C(1) - batch.smoothing, uniform = counts ? batch.smoothing / C(classes) : C(0);
    for (int64_t k = 0; k < classes; ++k)
      row[k] = (batch.weights ? batch.weights[from + k] * keep : C(0)) + uniform;
    if (!batch.weights && counts) row[batch.labels[first + r]] += keep;
    spread(r, weights);
  }

  DAQAKD_INLINE void find_target(Lanes16<C>& lanes) const {
    if (batch.has_label()) {
      for (int64_t r = 0; r < count; ++r) {
        const int64_t y = batch.labels[first + r];
        lanes.weight[r] = y == batch.ignore ? C(0) : C(1);
        lanes.logit[r] = y == batch.ignore ? C(0) : z[at(r, y)];
      }
    } else if (batch.has_weights()) {
      std::fill_n(weights, size, C(0));
      for (int64_t r = 0; r < count; ++r) read_weights(r);
      sum(weights, lanes.weight);
      for (int64_t i = 0; i < size; ++i) exp_z[i] = kd_weighted(weights[i], z[i]);
      sum(exp_z, lanes.logit);
    }
    if (!kAcross && batch.has_label()) {
      std::fill_n(lanes.weight, kLanes, C(lanes.weight[0]));
      std::fill_n(lanes.logit, kLanes, C(lanes.logit[0]));
    }
  }

  DAQAKD_INLINE void write_row(int64_t r, C target) const {
    const int64_t classes = batch.classes;
    for (int64_t k = 0; k < classes; ++k) row[k] = exp_z[at(r, k)];
    if (batch.has_label())
      if (batch.labels[first + r] != batch.ignore) row[batch.labels[first + r]] -= target;
    if (batch.upstream) {
      const C factor = batch.upstream[(first + r) * batch.upstream_stride] * batch.scale;
      for (int64_t k = 0; k < classes; ++k) row[k] *= factor;
    }
    write(row, (first + r) * classes, classes, batch.grad);
  }

  // Finds the rows' spreads, and puts what stands for them in the gradient into z and t.
  DAQAKD_INLINE void centre(const C* __restrict__ kl_terms, Lanes16<C>& lanes) const {
    C spread[kLanes] = {};
    const auto departure = [&](int64_t i) { return -kl_terms[i] / t[i]; };
    for (int lane = 0; lane < kLanes; ++lane)
      lanes.centre[lane] = KDCentre<C>(lanes.exp_t_T[lane], lanes.kl_terms[lane]);
    for (int64_t i = 0; i < size; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane)
        spread[lane] += lanes.centre[lane].term(z[i + lane], t[i + lane], departure(i + lane));
    if constexpr (!kAcross) std::fill_n(spread, kLanes, add_lanes(spread));
    for (int lane = 0; lane < kLanes; ++lane)
      lanes.centre[lane].spread = spread[lane] / lanes.centre[lane].total;
    for (int64_t i = 0; i < size; i += kLanes)
      for (int lane = 0; lane < kLanes; ++lane) {
        const KDCentre<C>& row = lanes.centre[lane];
        const C difference = row.difference(z[i + lane], t[i + lane], departure(i + lane));
        z[i + lane] = row.holds() ? difference : z[i + lane];
      }
  }

  DAQAKD_INLINE void run() const {
    Lanes16<C> lanes;
    read_logits(batch.student, z);
    read_logits(batch.teacher, t);
    find_target(lanes);
    C* kl_terms = row + batch.classes;
    const C temperature = batch.settings.temperature, inverse = C(1) / temperature;
    if (temperature == C(4))
      exponentials<4>(size, inverse, z, t, exp_z, kl_terms);
    else if (temperature == C(2))
      exponentials<2>(size, inverse, z, t, exp_z, kl_terms);
    else if (temperature == C(1))
      exponentials<1>(size, inverse, z, t, exp_z, kl_terms);
    else
      exponentials<0>(size, inverse, z, t, exp_z, kl_terms);
    sum(exp_z, lanes.exp_z), sum(z, lanes.exp_z_T), sum(t, lanes.exp_t_T),
        sum(kl_terms, lanes.kl_terms);
    if (temperature >= C(kCentredTemperature)) centre(kl_terms, lanes);
    lanes.finish(batch.ce_coefficient, batch.settings);
    if (batch.ce) std::copy_n(lanes.ce, count, batch.ce + first);
    if (batch.kl) std::copy_n(lanes.kl, count, batch.kl + first);
    if (!batch.grad.data) return;
    if (batch.has_weights())
      gradients<C, true>(size, lanes, exp_z, z, t, weights);
    else
      gradients<C, false>(size, lanes, exp_z, z, t, weights);
    for (int64_t r = 0; r < count; ++r) write_row(r, lanes.target[r]);
  }
};

template <class C, bool kAcross>
struct BlocksBody {
  // scratch [5, size] and [classes]
  DAQAKD_INLINE static void run(
      const Batch<C>* batch, int64_t first, int64_t last, int64_t size, C* scratch) {
    constexpr int64_t kRows = kAcross ? kLanes : 1;
    for (; first < last; first += kRows)
      Block<C, kAcross>{
          *batch,
          first,
          std::min(kRows, last - first),
          size,
          scratch,
          scratch + size,
          scratch + 2 * size,
          scratch + 3 * size,
          scratch + 4 * size}
          .run();
  }
};

}  // namespace daqakd::cpu
