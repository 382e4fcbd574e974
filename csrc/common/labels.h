#pragma once

#include "check.h"
#include "inline.h"

namespace daqakd {

inline bool is_soft(const Tensor& labels) { return labels.scalar_type() != ScalarType::Long; }

// `x`, contiguous.
inline Tensor as_rows(const Tensor& x) { return as_parameter(x, x.scalar_type()); }

// int64 [B], or probabilities [B, C] as double.
inline Tensor label_rows(const Tensor& labels) {
  return is_soft(labels) ? as_parameter(labels, ScalarType::Double) : as_rows(labels);
}

// [C, C] of double; rows may lie anywhere, so an expanded row is not copied.
inline Tensor centroid_rows(const Tensor& centroids) {
  const bool ready = centroids.scalar_type() == ScalarType::Double &&
                     (centroids.size(1) <= 1 || centroids.stride(1) == 1);
  return ready ? centroids : as_parameter(centroids, ScalarType::Double);
}

// The labels of a batch: a class, or a probability of each class, times an optional weight.
struct Labels {
  Labels(const Tensor& labels, const optional<Tensor>& weights)
      : hard(is_soft(labels) ? nullptr : data<int64_t>(labels)),
        soft(is_soft(labels) ? data<double>(labels) : nullptr),
        weight(weights ? data<double>(*weights) : nullptr) {}

  DAQAKD_INLINE double weight_of(int64_t row) const { return weight ? weight[row] : 1.0; }

  const int64_t* hard;   // [B] or null
  const double* soft;    // [B, C] or null
  const double* weight;  // [B] or null
};

// Sums of a row are at most weight * 4096: units of 2^-36 of them fit in 64 bits.
constexpr double kLargestWeight = 1 << 14;

inline void check_rows(const Tensor& logits, const Tensor& labels) {
  check_input("logits", logits);
  require(logits.dim() == 2 && logits.size(1) > 0, "logits: expected [B, C] with a class at least");
  const bool fits =
      is_soft(labels) ? labels.dim() == 2 && labels.size(1) == logits.size(1) : labels.dim() == 1;
  require(
      fits && labels.size(0) == logits.size(0),
      "labels: expected int64 [B] or probabilities [B, C] for the rows of the logits");
  if (is_soft(labels)) check_floating("labels", labels);
  check_beside("labels", labels, logits);
}

inline void check_row_gradient(const Tensor& grad, const Tensor& logits) {
  require(
      grad.dim() == 1 && grad.size(0) == logits.size(0),
      "grad: expected one value for each of the ", logits.size(0), " rows");
  check_floating("grad", grad);
  check_beside("grad", grad, logits);
}

inline void check_state(
    const Tensor& state, const Tensor& logits, int64_t extra_columns,
    const optional<Tensor>& weight, const optional<Tensor>& group) {
  const int64_t classes = logits.size(1), rows = logits.size(0);
  const int64_t columns = classes + extra_columns;
  require(
      state.scalar_type() == ScalarType::Long && state.is_contiguous() && state.dim() == 4 &&
          state.size(0) > 0 && state.size(1) == classes && state.size(2) == columns &&
          state.size(3) == 2,
      "state: expected contiguous int64 [groups, ", classes, ", ", columns, ", 2] with a group");
  check_beside("state", state, logits);
  if (weight) {
    require(
        weight->dim() == 1 && weight->numel() == rows,
        "weight: expected one value for each of the ", rows, " rows");
    check_floating("weight", *weight);
    check_beside("weight", *weight, logits);
  }
  if (!group) return;
  require(
      group->dim() == 1 && group->numel() == rows && group->scalar_type() == ScalarType::Long,
      "group: expected an int64 for each of the ", rows, " rows");
  check_beside("group", *group, logits);
}

inline void check_centroids(const Tensor& centroids, const Tensor& logits) {
  const int64_t classes = logits.size(1);
  require(
      centroids.dim() == 2 && centroids.size(0) == classes && centroids.size(1) == classes,
      "centroids: expected [", classes, ", ", classes, "]");
  check_floating("centroids", centroids);
  check_beside("centroids", centroids, logits);
}

}  // namespace daqakd
