#include "../ops.h"
#include "cmi_rows.cuh"

namespace daqakd::cuda {
namespace {

// The reference of a row: a centroid, or a mixture of them by the row's label weights.
template <int kLanes, int kItems>
struct Reference {
  __device__ Reference(
      const Labels& labels, int64_t index, int64_t classes, const double* centroids, int64_t stride,
      const SubWarp<kLanes>& warp)
      : centroids(centroids),
        soft(labels.soft ? labels.soft + index * classes : nullptr),
        classes(classes),
        stride(stride),
        own_label(labels.hard ? labels.hard[index] : 0),
        warp(warp) {
    known = own_label >= 0 && own_label < classes;
    own_label = known ? own_label : 0;
    if (!soft) find_peak(centroids + own_label * stride);
  }

  __device__ __forceinline__ void find_peak(const double* q) {  // [C]
    double rest = 0;
    for (int64_t k = warp.lane; k < classes; k += kLanes) peak = q[k] > peak ? q[k] : peak;
    peak = warp.best(peak, [](double a, double b) { return a > b; });
    for (int64_t k = warp.lane; k < classes; k += kLanes) rest += q[k] == peak ? 0.0 : q[k];
    log_peak = cmi_log_peak(peak, warp.sum(rest));
  }

  // Its values from class `first` on.
  __device__ __forceinline__ void fill(int64_t first, double (&mix)[kItems]) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) mix[j] = 0;
    const auto add_class = [&](int64_t label, double label_weight) {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int64_t k = first + j * kLanes + warp.lane;
        if (k < classes) mix[j] += label_weight * centroids[label * stride + k];
      }
    };
    if (soft)
      each_soft(soft, classes, warp, add_class);
    else
      add_class(own_label, 1.0);
  }

  __device__ __forceinline__ double log_of(double value) const {
    return !soft && value == peak ? log_peak : log64(value);
  }

  const double *centroids, *soft;  // [C, C], [C] or null
  int64_t classes, stride, own_label;
  const SubWarp<kLanes>& warp;
  bool known;                         // a label out of range makes the row NaN
  double peak = -INFINITY, log_peak;  // the largest probability of a centroid
};

// One sub-warp: the divergence of one row, or dx = g * p * (log_ratio - divergence).
template <class T, int kLanes, int kItems, bool kWhole, bool kBackward>
__global__ void __launch_bounds__(kRowThreads, 1) cmi_divergence_rows(
    LogitRows<T> rows,
    const double* __restrict__ centroids,  // [C, C]
    int64_t stride,
    const double* __restrict__ grad,  // [B] or null
    double* __restrict__ divergence,  // [B] or null
    T* __restrict__ dx) {             // [B, C] or null
  const SubWarp<kLanes> warp;
  const int64_t index = int64_t(blockIdx.x) * (kRowThreads / kLanes) + threadIdx.x / kLanes;
  if (index >= rows.count) return;
  LogitRow<T, kLanes, kItems, kWhole> row(rows, index, warp.lane);
  CMIRow all = row.summary(warp);
  const Reference<kLanes, kItems> reference(
      rows.labels, index, rows.classes, centroids, stride, warp);
  if (!reference.known) all.log_total = NAN;
  double probabilities[kItems], log_ratios[kItems], sum = 0;
  const auto fill = [&](int64_t first) {
    reference.fill(first, log_ratios);
    row.each(first, [&](int64_t, double value, int j) {
      probabilities[j] = all.probability(value);
      log_ratios[j] = cmi_log_ratio(
          probabilities[j], all.log_probability(value), reference.log_of(log_ratios[j]));
    });
  };
  row.tiles([&](int64_t first) {
    fill(first);
    row.each(first, [&](int64_t, double, int j) { sum += probabilities[j] * log_ratios[j]; });
  });
  sum = warp.sum(sum);
  if constexpr (!kBackward) {
    if (warp.lane == 0) divergence[index] = sum;
  } else {
    row.tiles([&](int64_t first) {
      if constexpr (!kWhole) fill(first);
      row.each(first, [&](int64_t k, double, int j) {
        dx[index * rows.classes + k] =
            store<T>(float(grad[index] * probabilities[j] * (log_ratios[j] - sum)));
      });
    });
  }
}

template <bool kBackward>
void diverge(
    const Tensor& logits, const Tensor& labels, const Tensor& centroids, const double* grad,
    double* divergence, void* dx) {
  const Launch launch(logits);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    const LogitRows<T> rows{
        data<T>(logits), logits.size(0), logits.size(1), Labels(labels, std::nullopt)};
    by_classes(rows.classes, rows.count, [&](auto config, int64_t blocks) {
      using S = decltype(config);
      launch(
          cmi_divergence_rows<T, S::kLanes, S::kItems, S::kWhole, kBackward>, blocks, kRowThreads,
          rows, data<double>(centroids), centroids.stride(0), grad, divergence,
          static_cast<T*>(dx));
    });
  });
}

}  // namespace

Tensor cmi_divergence(const Tensor& logits, const Tensor& labels, const Tensor& centroids) {
  check_rows(logits, labels);
  check_centroids(centroids, logits);
  const int64_t rows = logits.size(0);
  Tensor result = empty(logits, &rows, 1, ScalarType::Double);
  if (rows > 0)
    diverge<false>(
        as_rows(logits), label_rows(labels), centroid_rows(centroids), nullptr,
        mutable_data<double>(result), nullptr);
  return result;
}

Tensor cmi_divergence_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& labels, const Tensor& centroids) {
  check_rows(logits, labels);
  check_centroids(centroids, logits);
  check_row_gradient(grad, logits);
  const Tensor z = as_rows(logits), g = as_parameter(grad, ScalarType::Double);
  Tensor result = empty_as(z);
  if (z.numel() > 0)
    diverge<true>(
        z, label_rows(labels), centroid_rows(centroids), data<double>(g), nullptr,
        result.mutable_data_ptr());
  return in_strides_of(result, empty_as(logits));
}

}  // namespace daqakd::cuda
