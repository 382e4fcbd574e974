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

// One team: one row to the sums of its classes. A label or group out of range counts as invalid in
// class or group 0, for there is nobody to tell before the results are read.
template <class T, int kLanes, int kItems, bool kWhole>
__global__ void __launch_bounds__(kRowThreads, 1) cmi_update_rows(
    LogitRows<T> rows,
    const int64_t* __restrict__ group,  // [B] or null
    int64_t groups,
    int64_t* state) {  // [groups, C, C + 5, 2]
  const Team<kLanes> team;
  const int64_t index = int64_t(blockIdx.x) * (kRowThreads / kLanes) + threadIdx.x / kLanes;
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
    by_classes(rows.classes, rows.count, [&](auto shape, int64_t blocks) {
      using S = decltype(shape);
      launch(
          cmi_update_rows<T, S::kLanes, S::kItems, S::kWhole>, blocks, kRowThreads, rows,
          group ? data<int64_t>(*group) : static_cast<const int64_t*>(nullptr), state.size(0),
          mutable_data<int64_t>(state));
    });
  });
}

}  // namespace daqakd::cuda
