#include "../ops.h"
#include "cmi_rows.cuh"

namespace daqakd::cuda {
namespace {

// Integers commute, so atomics give the same bits in any order; nothing waits for their result.
__device__ __forceinline__ void add(int64_t* column, double value) {
  using Word = unsigned long long;
  const Limbs limbs(value);
  if (limbs.high != 0) atomicAdd(reinterpret_cast<Word*>(column), Word(limbs.high));
  if (limbs.low != 0) atomicAdd(reinterpret_cast<Word*>(column + 1), Word(limbs.low));
}

// One sub-warp: one row to the sums of its classes. A label or group out of range counts as invalid
// in class or group 0, because a kernel cannot raise an error.
template <class T, int kLanes, int kItems, bool kWhole>
__global__ void __launch_bounds__(kRowThreads, 1) cmi_update_rows(
    LogitRows<T> rows,
    const int64_t* __restrict__ group,  // [B] or null
    int64_t groups,
    int64_t* state) {  // [groups, C, C + 5, 2]
  const SubWarp<kLanes> warp;
  const int64_t index = int64_t(blockIdx.x) * (kRowThreads / kLanes) + threadIdx.x / kLanes;
  if (index >= rows.count) return;
  const int64_t classes = rows.classes, columns = classes + kExtraColumns;
  LogitRow<T, kLanes, kItems, kWhole> row(rows, index, warp.lane);
  CMIRow all = row.summary(warp);
  const double weight = rows.labels.weight_of(index);
  int64_t own_group = group ? group[index] : 0,
          own_label = rows.labels.hard ? rows.labels.hard[index] : 0;
  if (own_group < 0 || own_group >= groups || own_label < 0 || own_label >= classes)
    all.entropy = NAN;
  own_group = own_group < 0 || own_group >= groups ? 0 : own_group;
  own_label = own_label < 0 || own_label >= classes ? 0 : own_label;
  const auto each_label = [&](const auto& body) {
    const auto sums_of = [&](int64_t label) {
      return state + (own_group * classes + label) * columns * 2;
    };
    if (rows.labels.hard) return body(own_label, weight, sums_of(own_label));
    each_soft(
        rows.labels.soft + index * classes, classes, warp, [&](int64_t label, double label_weight) {
          body(label, label_weight * weight, sums_of(label));
        });
  };
  each_label([&](int64_t label, double label_weight, int64_t* sums) {
    if (warp.lane >= kExtraColumns) return;
    const double z = load(row.z[label]);
    add(sums + 2 * (classes + warp.lane), cmi_extra(all, warp.lane, label, z) * label_weight);
  });
  if (!all.valid()) return;
  row.tiles([&](int64_t first) {
    double probabilities[kItems];
    row.each(
        first, [&](int64_t, double value, int j) { probabilities[j] = all.probability(value); });
    each_label([&](int64_t, double label_weight, int64_t* sums) {
#pragma unroll
      for (int j = 0; j < kItems; ++j) {
        const int64_t k = first + j * kLanes + warp.lane;
        if (k < classes) add(sums + 2 * k, probabilities[j] * label_weight);
      }
    });
  });
}

}  // namespace

void cmi_update(
    Tensor state, const Tensor& logits, const Tensor& labels, optional<Tensor> weight,
    optional<Tensor> group) {
  check_rows(logits, labels);
  check_state(state, logits, kExtraColumns, weight, group);
  if (logits.numel() == 0) return;
  const Launch launch(logits);
  const Tensor z = as_rows(logits), y = label_rows(labels);
  if (weight) weight = as_parameter(*weight, ScalarType::Double);
  if (group) group = as_rows(*group);
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    const LogitRows<T> rows{data<T>(z), z.size(0), z.size(1), Labels(y, weight)};
    by_classes(rows.classes, rows.count, [&](auto config, int64_t blocks) {
      using S = decltype(config);
      launch(
          cmi_update_rows<T, S::kLanes, S::kItems, S::kWhole>, blocks, kRowThreads, rows,
          group ? data<int64_t>(*group) : static_cast<const int64_t*>(nullptr), state.size(0),
          mutable_data<int64_t>(state));
    });
  });
}

}  // namespace daqakd::cuda
