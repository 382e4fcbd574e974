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

inline void check_row_gradient(const Tensor& grad, const Tensor& logits) {
  STD_TORCH_CHECK(
      grad.dim() == 1 && grad.size(0) == logits.size(0) && grad.device() == logits.device(),
      "grad: expected one value for each of the ", logits.size(0), " rows");
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

inline void check_rows(const Tensor& logits, const Tensor& labels) {
  STD_TORCH_CHECK(
      logits.dim() == 2 && logits.size(1) > 0, "logits: expected [B, C] with a class at least");
  const bool fits =
      is_soft(labels) ? labels.dim() == 2 && labels.size(1) == logits.size(1) : labels.dim() == 1;
  STD_TORCH_CHECK(
      fits && labels.size(0) == logits.size(0),
      "labels: expected int64 [B] or probabilities [B, C] for the rows of the logits");
  STD_TORCH_CHECK(labels.device() == logits.device(), "labels: are on another device; move them");
}

inline void check_state(
    const Tensor& state, const Tensor& logits, int64_t extra_columns,
    const optional<Tensor>& weight, const optional<Tensor>& group) {
  const int64_t classes = logits.size(1), rows = logits.size(0);
  const int64_t columns = classes + extra_columns;
  STD_TORCH_CHECK(
      state.scalar_type() == ScalarType::Long && state.is_contiguous() && state.dim() == 4 &&
          state.size(1) == classes && state.size(2) == columns && state.size(3) == 2 &&
          state.device() == logits.device(),
      "state: expected contiguous int64 [groups, ", classes, ", ", columns,
      ", 2] on the device of the logits");
  STD_TORCH_CHECK(
      !weight || (weight->numel() == rows && weight->device() == logits.device()),
      "weight: expected one value for each of the ", rows, " rows");
  STD_TORCH_CHECK(
      !group || (group->numel() == rows && group->scalar_type() == ScalarType::Long &&
                 group->device() == logits.device()),
      "group: expected an int64 for each of the ", rows, " rows");
}

inline void check_centroids(const Tensor& centroids, const Tensor& logits) {
  const int64_t classes = logits.size(1);
  STD_TORCH_CHECK(
      centroids.dim() == 2 && centroids.size(0) == classes && centroids.size(1) == classes &&
          centroids.device() == logits.device(),
      "centroids: expected [", classes, ", ", classes, "] on the device of the logits");
}

}  // namespace daqakd
