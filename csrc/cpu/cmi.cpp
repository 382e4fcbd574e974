#include "../formulas/cmi.h"

#include <algorithm>
#include <vector>

#include "../common/labels.h"
#include "../common/simd.h"
#include "../ops.h"
#include "dispatch.h"
#include "partition.h"

namespace daqakd::cpu {
namespace {

constexpr int64_t kChunk = 1 << 19;  // weights of rows kept between the two steps of an update
constexpr int64_t kCost = 4;         // an exponential is worth as many elements

int64_t padded(int64_t classes) { return ceil_div(classes, kRowLanes) * kRowLanes; }

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
struct Batch : Labels {
  Batch(const Labels& labels, const Tensor& logits, const int64_t* group, int64_t groups)
      : Labels(labels), classes(logits.size(1)), group(group) {
    for (int64_t i = 0; i < logits.size(0); ++i) {
      STD_TORCH_CHECK(
          !hard || (0 <= hard[i] && hard[i] < classes), "labels: expected classes from 0 to ",
          classes - 1, ", got ", hard ? hard[i] : 0);
      STD_TORCH_CHECK(
          !group || (0 <= group[i] && group[i] < groups), "group: expected groups from 0 to ",
          groups - 1, ", got ", group ? group[i] : 0);
    }
  }

  // body(label, share) for the labels from `begin` to `end` that a row has.
  template <class F>
  void each(int64_t row, int64_t begin, int64_t end, const F& body) const {
    if (hard && begin <= hard[row] && hard[row] < end) body(hard[row], weight_of(row));
    for (int64_t y = begin; soft && y < end; ++y)
      if (soft[row * classes + y] != 0.0) body(y, soft[row * classes + y] * weight_of(row));
  }

  int64_t classes;
  const int64_t* group;  // [B] or null
};

void add(int64_t* column, double value) {
  const Limbs limbs(value);
  column[0] += limbs.high;
  column[1] += limbs.low;
}

// One row, weights [C], to the sums of one class, [C + 5, 2]; z is the logit of that class.
void add_row(
    const CMIRow& row, const double* weights, int64_t classes, double z, int64_t label,
    double share, int64_t* sums) {
  for (int64_t k = 0; row.valid() && k < classes; ++k)
    add(sums + 2 * k, weights[k] * row.reciprocal * share);
  for (int column = 0; column < kExtraColumns; ++column)
    add(sums + 2 * (classes + column), cmi_extra(row, column, label, z) * share);
}

// Row by row first, then class by class: no two threads write the same sums, and integers add up
// to the same bits however the classes are cut.
template <class T>
void update(const Batch& batch, const T* logits, int64_t rows, int64_t* state) {
  const int64_t classes = batch.classes, width = padded(classes);
  const int64_t chunk = std::clamp<int64_t>(kChunk / width, 1, rows);
  std::vector<double> weights(chunk * width);
  std::vector<CMIRow> scalars(chunk);
  for (int64_t first = 0; first < rows; first += chunk) {
    const int64_t count = std::min(chunk, rows - first);
    const T* z = logits + first * classes;
    parallel(count, classes * kCost, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i)
        run<WeighRow<T>>(z + i * classes, classes, &weights[i * width], &scalars[i]);
    });
    parallel(classes, count * kCost, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < count; ++i)
        batch.each(first + i, begin, end, [&](int64_t label, double share) {
          const int64_t group = batch.group ? batch.group[first + i] : 0;
          const int64_t place = (group * classes + label) * (classes + kExtraColumns) * 2;
          add_row(scalars[i], &weights[i * width], classes, load(z[i * classes + label]), label,
                  share, state + place);
        });
    });
  }
}

struct Centroids {
  const double* of;  // [C, C]
  int64_t stride;
  const double* row(int64_t label) const { return of + label * stride; }
};

// Where the divergence of one row is worked out, padded.
struct Scratch {
  explicit Scratch(int64_t classes)
      : weights(padded(classes)), reference(padded(classes)), gaps(padded(classes)) {}
  std::vector<double> weights, reference, gaps;
};

struct MixRow {
  DAQAKD_INLINE static void run(
      const double* __restrict__ centroid, double share, int64_t classes, double* __restrict__ mix) {
    for (int64_t k = 0; k < classes; ++k) mix[k] += share * centroid[k];
  }
};

// z [C] -> shares and gaps [padded], and their product's sum; `reference` [padded] is a centroid or
// a `mixture` of them.
template <class T>
struct DivergeRow {
  DAQAKD_INLINE static void run(
      const T* z, int64_t classes, bool mixture, const double* reference, double* shares,
      double* gaps, double* divergence) {
    CMIRow row;
    WeighRow<T>::run(z, classes, shares, &row);
    const double* __restrict__ r = reference;
    double *__restrict__ gap = gaps, *__restrict__ p = shares;
    const int64_t width = padded(classes);
    for (int64_t k = 0; k < width; ++k) gap[k] = log64(r[k]);
    if (!mixture) {
      const double peak = peak_of(r, width);
      const double rest = sum_lanes(width, [&](int64_t k) __attribute__((always_inline)) {
        return r[k] == peak ? 0.0 : r[k];
      });
      const double log_peak = cmi_log_peak(peak, rest);
      for (int64_t k = 0; k < width; ++k) gap[k] = r[k] == peak ? log_peak : gap[k];
    }
    for (int64_t k = 0; k < classes; ++k) {
      p[k] *= row.reciprocal;
      gap[k] = cmi_gap(p[k], row.log_share(load(z[k])), gap[k]);
    }
    std::fill(gap + classes, gap + width, 0.0);
    *divergence =
        sum_lanes(width, [&](int64_t k) __attribute__((always_inline)) { return p[k] * gap[k]; });
  }
};

// Calls body(row, shares, gaps, divergence) for every row.
template <class T, class F>
void diverge(
    const Batch& batch, const T* logits, int64_t rows, const Centroids& centroids, const F& body) {
  const int64_t classes = batch.classes, width = padded(classes);
  parallel(rows, classes * kCost, [&](int64_t begin, int64_t end) {
    std::vector<double> shares(width), gaps(width), reference(width);
    for (int64_t i = begin; i < end; ++i) {
      std::fill(reference.begin(), reference.end(), 0.0);
      batch.each(i, 0, classes, [&](int64_t label, double share) {
        run<MixRow>(centroids.row(label), share, classes, reference.data());
      });
      double divergence;
      run<DivergeRow<T>>(
          logits + i * classes, classes, !batch.hard,
          static_cast<const double*>(reference.data()), shares.data(), gaps.data(), &divergence);
      body(i, shares.data(), gaps.data(), divergence);
    }
  });
}

}  // namespace

void cmi_update(
    Tensor state, const Tensor& logits, const Tensor& labels, std::optional<Tensor> weight,
    std::optional<Tensor> group) {
  check_rows(logits, labels);
  check_state(state, logits, weight, group);
  if (logits.numel() == 0) return;
  const Tensor z = as_rows(logits), y = label_rows(labels);
  if (weight) weight = as_parameter(*weight, ScalarType::Double);
  if (group) group = as_rows(*group);
  const Batch batch(
      Labels(y, weight), logits, group ? data<int64_t>(*group) : nullptr, state.size(0));
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    update(batch, data<T>(z), z.size(0), mutable_data<int64_t>(state));
  });
}

Tensor cmi_divergence(const Tensor& logits, const Tensor& labels, const Tensor& centroids) {
  check_rows(logits, labels);
  check_centroids(centroids, logits);
  const int64_t rows = logits.size(0);
  const Tensor z = as_rows(logits), y = label_rows(labels), q = centroid_rows(centroids);
  const Batch batch(Labels(y, std::nullopt), logits, nullptr, 1);
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
  const Batch batch(Labels(y, std::nullopt), logits, nullptr, 1);
  Tensor result = empty_as(z);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    T* out = mutable_data<T>(result);
    diverge(
        batch, data<T>(z), rows, Centroids{data<double>(q), q.stride(0)},
        [&](int64_t i, const double* p, const double* gap, double divergence) {
          const double upstream = data<double>(g)[i];
          for (int64_t k = 0; k < classes; ++k)
            out[i * classes + k] =
                store<T>(Compute<T>(upstream * p[k] * (gap[k] - divergence)));
        });
  });
  return in_strides_of(result, empty_as(logits));
}

}  // namespace daqakd::cpu
