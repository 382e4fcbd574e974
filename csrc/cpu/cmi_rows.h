#pragma once

#include <algorithm>
#include <vector>

#include "../common/labels.h"
#include "../formulas/cmi.h"
#include "dispatch.h"
#include "partition.h"
#include "simd.h"

// Rows of logits one after another, in the order of sums that the CUDA kernels have.
namespace daqakd::cpu {

constexpr double kLargestProbability = 1.001;  // rounding
constexpr int64_t kCost = 4;                   // an exponential is worth as many elements

inline int64_t padded(int64_t classes) { return ceil_div(classes, kRowLanes) * kRowLanes; }

// The sum of term(k) in the order of the CUDA kernels; `width` is padded.
template <class F>
DAQAKD_INLINE double sum_lanes(int64_t width, const F& term) {
  double lanes[kRowLanes] = {};
  for (int64_t k = 0; k < width; k += kRowLanes)
    for (int lane = 0; lane < kRowLanes; ++lane) lanes[lane] += term(k + lane);
  return add_lanes<kRowLanes>(lanes);
}

DAQAKD_INLINE double peak_of(const double* __restrict__ z, int64_t width) {  // [padded]
  double lanes[kRowLanes];
  std::copy_n(z, kRowLanes, lanes);
  for (int64_t k = kRowLanes; k < width; k += kRowLanes)
    for (int lane = 0; lane < kRowLanes; ++lane)
      lanes[lane] = z[k + lane] > lanes[lane] ? z[k + lane] : lanes[lane];
  return *std::max_element(lanes, lanes + kRowLanes);
}

// z [C] -> weights [padded], 0 beyond C, and what the row says as a whole.
template <class T>
struct WeighRow {
  DAQAKD_INLINE static void run(const T* z, int64_t classes, double* weights, CMIRow* row) {
    double* __restrict__ w = weights;
    const int64_t width = padded(classes);
    for (int64_t k = 0; k < classes; ++k) w[k] = load(z[k]);
    std::fill(w + classes, w + width, -INFINITY);
    const double peak = peak_of(w, width);
    const int64_t at = std::min<int64_t>(std::find(w, w + classes, peak) - w, classes - 1);
    const int64_t peaks = std::count(w, w + classes, peak);
    double terms[kRowLanes] = {}, others[kRowLanes] = {};
    for (int64_t k = 0; k < width; k += kRowLanes)
      for (int lane = 0; lane < kRowLanes; ++lane) {
        const double z = w[k + lane], weight = exp64(z - peak);
        terms[lane] += cmi_term(weight, z - peak);
        others[lane] += z == peak ? 0.0 : weight;
        w[k + lane] = weight;
      }
    const double rest = add_lanes<kRowLanes>(others) + double(peaks - 1);
    *row = CMIRow(peak, at, rest, add_lanes<kRowLanes>(terms));
  }
};

// The labels of a batch on the host, all of them checked.
struct BatchLabels : Labels {
  BatchLabels(const Labels& labels, const Tensor& logits, const int64_t* group, int64_t groups)
      : Labels(labels), classes(logits.size(1)), group(group) {
    for (int64_t i = 0; i < logits.size(0); ++i) {
      require(
          !hard || (0 <= hard[i] && hard[i] < classes), "labels: expected classes from 0 to ",
          classes - 1, ", got ", hard ? hard[i] : 0);
      require(
          !group || (0 <= group[i] && group[i] < groups), "group: expected groups from 0 to ",
          groups - 1, ", got ", group ? group[i] : 0);
      require(
          std::fabs(weight_of(i)) <= kLargestWeight, "weight: expected at most ", kLargestWeight,
          ", got ", weight_of(i));
    }
    for (int64_t i = 0; soft && i < logits.size(0) * classes; ++i)
      require(
          0 <= soft[i] && soft[i] <= kLargestProbability,
          "labels: expected probabilities from 0 to 1, got ", soft[i]);
  }

  // body(label, label_weight) for the labels from `begin` to `end` that a row has.
  template <class F>
  void each(int64_t row, int64_t begin, int64_t end, const F& body) const {
    if (hard && begin <= hard[row] && hard[row] < end) body(hard[row], weight_of(row));
    for (int64_t y = begin; soft && y < end; ++y)
      if (soft[row * classes + y] != 0.0) body(y, soft[row * classes + y] * weight_of(row));
  }

  int64_t classes;
  const int64_t* group;  // [B] or null
};

}  // namespace daqakd::cpu
