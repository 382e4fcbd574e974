#include "../ops.h"
#include "cmi_rows.h"

namespace daqakd::cpu {
namespace {

struct Centroids {
  const double* of;  // [C, C]
  int64_t stride;
  const double* row(int64_t label) const { return of + label * stride; }
};

struct MixRow {
  DAQAKD_INLINE static void run(
      const double* __restrict__ centroid, double label_weight, int64_t classes,
      double* __restrict__ mix) {
    for (int64_t k = 0; k < classes; ++k) mix[k] += label_weight * centroid[k];
  }
};

// z [C] -> probabilities and log_ratios [padded], and their product's sum; `reference` [padded] is
// a centroid or a `mixture` of them.
template <class T>
struct DivergeRow {
  DAQAKD_INLINE static void run(
      const T* z, int64_t classes, bool mixture, const double* reference, double* probabilities,
      double* log_ratios, double* divergence) {
    CMIRow row;
    WeighRow<T>::run(z, classes, probabilities, &row);
    const double* __restrict__ r = reference;
    double* __restrict__ log_ratio = log_ratios;
    double* __restrict__ p = probabilities;
    const int64_t width = padded(classes);
    for (int64_t k = 0; k < width; ++k) log_ratio[k] = log64(r[k]);
    if (!mixture) {
      const double peak = peak_of(r, width);
      const double rest = sum_lanes(width, [&](int64_t k) __attribute__((always_inline)) {
        return r[k] == peak ? 0.0 : r[k];
      });
      const double log_peak = cmi_log_peak(peak, rest);
      for (int64_t k = 0; k < width; ++k) log_ratio[k] = r[k] == peak ? log_peak : log_ratio[k];
    }
    for (int64_t k = 0; k < classes; ++k) {
      p[k] *= row.reciprocal;
      log_ratio[k] = cmi_log_ratio(p[k], row.log_probability(load(z[k])), log_ratio[k]);
    }
    std::fill(log_ratio + classes, log_ratio + width, 0.0);
    *divergence = sum_lanes(
        width, [&](int64_t k) __attribute__((always_inline)) { return p[k] * log_ratio[k]; });
  }
};

// Calls body(row, probabilities, log_ratios, divergence) for every row.
template <class T, class F>
void diverge(
    const BatchLabels& batch, const T* logits, int64_t rows, const Centroids& centroids,
    const F& body) {
  const int64_t classes = batch.classes, width = padded(classes);
  parallel(rows, classes * kCost, [&](int64_t begin, int64_t end) {
    std::vector<double> probabilities(width), log_ratios(width), reference(width);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(reference.begin(), reference.end(), 0.0);
      batch.each(i, 0, classes, [&](int64_t label, double label_weight) {
        run<MixRow>(centroids.row(label), label_weight, classes, reference.data());
      });
      double divergence;
      run<DivergeRow<T>>(
          logits + i * classes, classes, !batch.hard, static_cast<const double*>(reference.data()),
          probabilities.data(), log_ratios.data(), &divergence);
      body(i, probabilities.data(), log_ratios.data(), divergence);
    }
  });
}

}  // namespace

Tensor cmi_divergence(const Tensor& logits, const Tensor& labels, const Tensor& centroids) {
  check_rows(logits, labels);
  check_centroids(centroids, logits);
  const int64_t rows = logits.size(0);
  const Tensor z = as_rows(logits), y = label_rows(labels), q = centroid_rows(centroids);
  const BatchLabels batch(Labels(y, std::nullopt), logits, nullptr, 1);
  Tensor result = empty(logits, &rows, 1, ScalarType::Double);
  double* out = mutable_data<double>(result);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    diverge(
        batch, data<T>(z), rows, Centroids{data<double>(q), q.stride(0)},
        [&](int64_t i, const double*, const double*, double divergence) { out[i] = divergence; });
  });
  return result;
}

Tensor cmi_divergence_backward(
    const Tensor& grad, const Tensor& logits, const Tensor& labels, const Tensor& centroids) {
  check_rows(logits, labels);
  check_centroids(centroids, logits);
  check_row_gradient(grad, logits);
  const int64_t rows = logits.size(0), classes = logits.size(1);
  const Tensor z = as_rows(logits), y = label_rows(labels), q = centroid_rows(centroids);
  const Tensor g = as_parameter(grad, ScalarType::Double);
  const BatchLabels batch(Labels(y, std::nullopt), logits, nullptr, 1);
  Tensor result = empty_as(z);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    T* out = mutable_data<T>(result);
    diverge(
        batch, data<T>(z), rows, Centroids{data<double>(q), q.stride(0)},
        [&](int64_t i, const double* p, const double* log_ratio, double divergence) {
          const double upstream = data<double>(g)[i];
          for (int64_t k = 0; k < classes; ++k)
            out[i * classes + k] =
                store<T>(Compute<T>(upstream * p[k] * (log_ratio[k] - divergence)));
        });
  });
  return in_strides_of(result, empty_as(logits));
}

}  // namespace daqakd::cpu
