#include "../ops.h"
#include "cmi_rows.h"

namespace daqakd::cpu {
namespace {

constexpr int64_t kChunk = 1 << 19;  // weights of rows kept between the two steps of an update

void add(int64_t* column, double value) {
  const Limbs limbs(value);
  column[0] = int64_t(uint64_t(column[0]) + uint64_t(limbs.high));  // a full state wraps around
  column[1] = int64_t(uint64_t(column[1]) + uint64_t(limbs.low));
}

// One row, weights [C], to the sums of one class, [C + 5, 2]; z is the logit of that class.
void add_row(
    const CMIRow& row, const double* weights, int64_t classes, double z, int64_t label,
    double label_weight, int64_t* sums) {
  for (int64_t k = 0; row.valid() && k < classes; ++k)
    add(sums + 2 * k, weights[k] * row.reciprocal * label_weight);
  for (int column = 0; column < kExtraColumns; ++column)
    add(sums + 2 * (classes + column), cmi_extra(row, column, label, z) * label_weight);
}

// Row by row first, then class by class: no two threads write the same sums, and integers add up
// to the same bits however the classes are cut.
template <class T>
void update(const BatchLabels& batch, const T* logits, int64_t rows, int64_t* state) {
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
        batch.each(first + i, begin, end, [&](int64_t label, double label_weight) {
          const int64_t group = batch.group ? batch.group[first + i] : 0;
          const int64_t offset = (group * classes + label) * (classes + kExtraColumns) * 2;
          add_row(
              scalars[i], &weights[i * width], classes, load(z[i * classes + label]), label,
              label_weight, state + offset);
        });
    });
  }
}

}  // namespace

void cmi_update(
    Tensor state, const Tensor& logits, const Tensor& labels, optional<Tensor> weight,
    optional<Tensor> group) {
  check_rows(logits, labels);
  check_state(state, logits, kExtraColumns, weight, group);
  if (logits.numel() == 0) return;
  const Tensor z = as_rows(logits), y = label_rows(labels);
  if (weight) weight = as_parameter(*weight, ScalarType::Double);
  if (group) group = as_rows(*group);
  const BatchLabels batch(
      Labels(y, weight), logits, group ? data<int64_t>(*group) : nullptr, state.size(0));
  by_dtype(logits, [&](auto element) {
    using T = decltype(element);
    update(batch, data<T>(z), z.size(0), mutable_data<int64_t>(state));
  });
}

}  // namespace daqakd::cpu
