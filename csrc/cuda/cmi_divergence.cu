#include "../ops.h"
#include "cmi_rows.cuh"

namespace daqakd::cuda {
namespace {

// The reference of a row: a centroid, or a mixture of them by the row's shares.
template <int kLanes, int kItems>
struct Reference {
  __device__ Reference(const Labels& labels, int64_t index, int64_t classes, const double* centroids,
                       int64_t stride, const Team<kLanes>& team)
      : centroids(centroids), soft(labels.soft ? labels.soft + index * classes : nullptr),
        classes(classes), stride(stride), own(labels.hard ? labels.hard[index] : 0), team(team) {
    known = own >= 0 && own < classes;
    own = known ? own : 0;
    if (!soft) find_peak(centroids + own * stride);
  }

  __device__ __forceinline__ void find_peak(const double* q) {  // [C]
    double rest = 0;
    for (int64_t k = team.lane; k < classes; k += kLanes) peak = q[k] > peak ? q[k] : peak;
    peak = team.best(peak, [](double a, double b) { return a > b; });
    for (int64_t k = team.lane; k < classes; k += kLanes) rest += q[k] == peak ? 0.0 : q[k];
    log_peak = cmi_log_peak(peak, team.sum(rest));
  }

  // Its values from class `first` on.
  __device__ __forceinline__ void fill(int64_t first, double (&mix)[kItems]) const {
#pragma unroll
    for (int j = 0; j < kItems; ++j) mix[j] = 0;
    const auto add_class = [&](int64_t label, double share) {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int64_t k = first + j * kLanes + team.lane;
        if (k < classes) mix[j] += share * centroids[label * stride + k];
      }
    };
    if (soft)
      each_soft(soft, classes, team, add_class);
    else
      add_class(own, 1.0);
  }

  __device__ __forceinline__ double log_of(double value) const {
    return !soft && value == peak ? log_peak : log64(value);
  }

  const double *centroids, *soft;  // [C, C], [C] or null
  int64_t classes, stride, own;
  const Team<kLanes>& team;
  bool known;  // a label out of range makes the row NaN
  double peak = -INFINITY, log_peak;  // the largest share of a centroid
};

// One team: the divergence of one row and, where `dx` is wanted, g * p * (gap - divergence).
template <class T, int kLanes, int kItems, bool kWhole, bool kBackward>
__global__ void __launch_bounds__(kRowThreads, 1) cmi_divergence_rows(
    LogitRows<T> rows,
    const double* __restrict__ centroids,  // [C, C]
    int64_t stride,
    const double* __restrict__ grad,  // [B] or null
    double* __restrict__ divergence,  // [B] or null
    T* __restrict__ dx) {             // [B, C] or null
  const Team<kLanes> team;
  const int64_t index = int64_t(blockIdx.x) * (kRowThreads / kLanes) + threadIdx.x / kLanes;
  if (index >= rows.count) return;
  Row<T, kLanes, kItems, kWhole> row(rows, index, team.lane);
  CMIRow all = row.summary(team);
  const Reference<kLanes, kItems> reference(
      rows.labels, index, rows.classes, centroids, stride, team);
  if (!reference.known) all.log_total = NAN;
  double shares[kItems], gaps[kItems], sum = 0;
  const auto fill = [&](int64_t first) {
    reference.fill(first, gaps);
    row.each(first, [&](int64_t, double value, int j) {
      shares[j] = all.share(value);
      gaps[j] = cmi_gap(shares[j], all.log_share(value), reference.log_of(gaps[j]));
    });
  };
  row.tiles([&](int64_t first) {
    fill(first);
    row.each(first, [&](int64_t, double, int j) { sum += shares[j] * gaps[j]; });
  });
  sum = team.sum(sum);
  if constexpr (!kBackward) {
    if (team.lane == 0) divergence[index] = sum;
  } else {
    row.tiles([&](int64_t first) {
      if constexpr (!kWhole) fill(first);
      row.each(first, [&](int64_t k, double, int j) {
        dx[index * rows.classes + k] =
            store<T>(float(grad[index] * shares[j] * (gaps[j] - sum)));
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
    by_classes(rows.classes, rows.count, [&](auto shape, int64_t blocks) {
      using S = decltype(shape);
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
