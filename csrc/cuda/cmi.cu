#include "../formulas/cmi.h"

#include "../common/labels.h"
#include "../common/launch.cuh"
#include "../ops.h"

namespace daqakd::cuda {
namespace {

constexpr int kThreads = 256;

// What the rows of a launch have in common.
template <class T>
struct Rows {
  const T* logits;  // [B, C]
  int64_t count, classes;
  Labels labels;
};

// Lanes next to each other share a row. Fewer than 32 lanes add as 32 do whose rest is zero.
template <int kLanes>
struct Team {
  __device__ Team() : lane(threadIdx.x % kLanes) {}

  template <class V>
  __device__ __forceinline__ V from(V value, int other) const {
    return __shfl_sync(mask(), value, other, kLanes);
  }
  template <class V>
  __device__ __forceinline__ V sum(V value) const {
#pragma unroll
    for (int width = kLanes / 2; width > 0; width /= 2)
      value += __shfl_xor_sync(mask(), value, width, kLanes);
    return value;
  }
  template <class V, class Better>
  __device__ __forceinline__ V best(V value, const Better& better) const {
#pragma unroll
    for (int width = kLanes / 2; width > 0; width /= 2) {
      const V other = __shfl_xor_sync(mask(), value, width, kLanes);
      value = better(other, value) ? other : value;
    }
    return value;
  }
  __device__ __forceinline__ unsigned mask() const {
    if constexpr (kLanes == 32) return 0xffffffffu;
    return ((1u << kLanes % 32) - 1) << (threadIdx.x % 32 / kLanes * kLanes);
  }

  int lane;
};

// One row, kItems classes of each lane at a time: all of them when kItems * kLanes classes suffice,
// which then stay in registers, else tile after tile.
template <class T, int kLanes, int kItems, bool kWhole>
struct Row {
  static constexpr int kTile = kLanes * kItems;

  __device__ Row(const Rows<T>& rows, int64_t index, int lane)
      : z(rows.logits + index * rows.classes), classes(rows.classes), lane(lane) {
    if constexpr (kWhole) fill(0);
  }

  __device__ __forceinline__ void fill(int64_t first) {
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int64_t k = first + j * kLanes + lane;
      if (k < classes) values[j] = z[k];
    }
  }

  // body(class, logit in double, item) for the tile of this lane that starts at `first`.
  template <class F>
  __device__ __forceinline__ void each(int64_t first, const F& body) {
    if constexpr (!kWhole) fill(first);
#pragma unroll
    for (int j = 0; j < kItems; ++j) {
      const int64_t k = first + j * kLanes + lane;
      if (k < classes) body(k, double(load(values[j])), j);
    }
  }

  // body(first class of a tile); one tile is no loop.
  template <class F>
  __device__ __forceinline__ void tiles(const F& body) {
    if constexpr (kWhole) return body(int64_t(0));
    for (int64_t first = 0; first < classes; first += kTile) body(first);
  }

  __device__ __forceinline__ CMIRow summary(const Team<kLanes>& team) {
    double peak = -INFINITY, terms = 0, others = 0;
    tiles([&](int64_t first) {
      each(first, [&](int64_t, double value, int) { peak = value > peak ? value : peak; });
    });
    peak = team.best(peak, [](double a, double b) { return a > b; });
    int64_t at = classes, peaks = 0;
    tiles([&](int64_t first) {
      each(first, [&](int64_t k, double value, int) {
        const double weight = exp64(value - peak);
        terms += cmi_term(weight, value - peak);
        others += value == peak ? 0.0 : weight;
        peaks += value == peak;
        at = value == peak && k < at ? k : at;
      });
    });
    at = team.best(at, [](int64_t a, int64_t b) { return a < b; });
    const double rest = team.sum(others) + double(team.sum(peaks) - 1);
    return CMIRow(peak, at, rest, team.sum(terms));
  }

  const T* z;  // [C]
  int64_t classes;
  int lane;
  T values[kItems];
};

// Calls body(label, share) for every class a row belongs to; all lanes of the team take part.
template <int kLanes, class F>
__device__ __forceinline__ void each_soft(
    const double* shares, int64_t classes, const Team<kLanes>& team, const F& body) {  // [C]
  for (int64_t first = 0; first < classes; first += kLanes) {
    const double mine = first + team.lane < classes ? shares[first + team.lane] : 0.0;
    for (int j = 0; j < kLanes; ++j) {
      const double share = team.from(mine, j);
      if (share != 0.0) body(first + j, share);
    }
  }
}

// Integers commute, so atomics give the same bits in any order; nothing waits for their result.
__device__ __forceinline__ void add(int64_t* column, double value) {
  using Word = unsigned long long;
  const Limbs limbs(value);
  if (limbs.high != 0) atomicAdd(reinterpret_cast<Word*>(column), Word(limbs.high));
  if (limbs.low != 0) atomicAdd(reinterpret_cast<Word*>(column + 1), Word(limbs.low));
}

// One team: one row to the sums of its classes. A label or group out of range counts as invalid in
// class or group 0, for there is nobody to tell before the results are read.
template <class T, int kLanes, int kItems, bool kWhole>
__global__ void __launch_bounds__(kThreads, 1) cmi_update_rows(
    Rows<T> rows,
    const int64_t* __restrict__ group,  // [B] or null
    int64_t groups,
    int64_t* state) {  // [groups, C, C + 5, 2]
  const Team<kLanes> team;
  const int64_t index = int64_t(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
  if (index >= rows.count) return;
  const int64_t classes = rows.classes, columns = classes + kExtraColumns;
  Row<T, kLanes, kItems, kWhole> row(rows, index, team.lane);
  CMIRow all = row.summary(team);
  const double weight = rows.labels.weight_of(index);
  int64_t part = group ? group[index] : 0, own = rows.labels.hard ? rows.labels.hard[index] : 0;
  if (part < 0 || part >= groups || own < 0 || own >= classes) all.entropy = NAN;
  part = part < 0 || part >= groups ? 0 : part;
  own = own < 0 || own >= classes ? 0 : own;
  const auto each_label = [&](const auto& body) {
    const auto place = [&](int64_t label) { return state + (part * classes + label) * columns * 2; };
    if (rows.labels.hard) return body(own, weight, place(own));
    each_soft(rows.labels.soft + index * classes, classes, team, [&](int64_t label, double share) {
      body(label, share * weight, place(label));
    });
  };
  each_label([&](int64_t label, double share, int64_t* sums) {
    if (team.lane >= kExtraColumns) return;
    const double z = load(row.z[label]);
    add(sums + 2 * (classes + team.lane), cmi_extra(all, team.lane, label, z) * share);
  });
  if (!all.valid()) return;
  row.tiles([&](int64_t first) {
    double shares[kItems];
    row.each(first, [&](int64_t, double value, int j) { shares[j] = all.share(value); });
    each_label([&](int64_t, double share, int64_t* sums) {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int64_t k = first + j * kLanes + team.lane;
        if (k < classes) add(sums + 2 * k, shares[j] * share);
      }
    });
  });
}

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
__global__ void __launch_bounds__(kThreads, 1) cmi_divergence_rows(
    Rows<T> rows,
    const double* __restrict__ centroids,  // [C, C]
    int64_t stride,
    const double* __restrict__ grad,  // [B] or null
    double* __restrict__ divergence,  // [B] or null
    T* __restrict__ dx) {             // [B, C] or null
  const Team<kLanes> team;
  const int64_t index = int64_t(blockIdx.x) * (kThreads / kLanes) + threadIdx.x / kLanes;
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

template <int kLanes_, int kItems_, bool kWhole_>
struct Shape {
  static constexpr int kLanes = kLanes_, kItems = kItems_;
  static constexpr bool kWhole = kWhole_;
};

// Calls body(shape, blocks) with the shape for so many classes.
template <class F>
void by_classes(int64_t classes, int64_t rows, const F& body) {
  const auto blocks = [&](int lanes) { return (rows * lanes + kThreads - 1) / kThreads; };
  if (classes <= 16) return body(Shape<16, 1, true>(), blocks(16));
  if (classes <= 128) return body(Shape<32, 4, true>(), blocks(32));
  if (classes <= 1024) return body(Shape<32, 32, true>(), blocks(32));
  body(Shape<32, 8, false>(), blocks(32));
}

template <bool kBackward>
void diverge(
    const Tensor& logits, const Tensor& labels, const Tensor& centroids, const double* grad,
    double* divergence, void* dx) {
  const Launch launch(logits);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    const Rows<T> rows{
        data<T>(logits), logits.size(0), logits.size(1), Labels(labels, std::nullopt)};
    by_classes(rows.classes, rows.count, [&](auto shape, int64_t blocks) {
      using S = decltype(shape);
      launch(
          cmi_divergence_rows<T, S::kLanes, S::kItems, S::kWhole, kBackward>, blocks, kThreads,
          rows, data<double>(centroids), centroids.stride(0), grad, divergence,
          static_cast<T*>(dx));
    });
  });
}

}  // namespace

void cmi_update(
    Tensor state, const Tensor& logits, const Tensor& labels, std::optional<Tensor> weight,
    std::optional<Tensor> group) {
  check_rows(logits, labels);
  check_state(state, logits, weight, group);
  if (logits.numel() == 0) return;
  const Launch launch(logits);
  const Tensor z = as_rows(logits), y = label_rows(labels);
  if (weight) weight = as_parameter(*weight, ScalarType::Double);
  if (group) group = as_rows(*group);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    const Rows<T> rows{data<T>(z), z.size(0), z.size(1), Labels(y, weight)};
    by_classes(rows.classes, rows.count, [&](auto shape, int64_t blocks) {
      using S = decltype(shape);
      launch(
          cmi_update_rows<T, S::kLanes, S::kItems, S::kWhole>, blocks, kThreads, rows,
          group ? data<int64_t>(*group) : static_cast<const int64_t*>(nullptr), state.size(0),
          mutable_data<int64_t>(state));
    });
  });
}

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
