#include "../formulas/kd_loss.h"

#include "../common/kd_arguments.h"
#include "../ops.h"
#include "kd_rows.h"

namespace daqakd::cpu {
namespace {

constexpr int64_t kWork = 4;  // an element costs as much as this many of an elementwise op

template <class C, bool kAcross>
void run_blocks(const Batch<C>& batch) {
  const int64_t rows = kAcross ? kLanes : 1;
  const int64_t size = (kAcross ? batch.classes : ceil_div(batch.classes, kLanes)) * kLanes;
  parallel(ceil_div(batch.rows, rows), size * kWork, [&](int64_t begin, int64_t end) {
    const std::unique_ptr<C[]> scratch(new C[5 * size + batch.classes]);
    run<BlocksBody<C, kAcross>>(
        &batch, begin * rows, std::min(batch.rows, end * rows), size, scratch.get());
  });
}

template <class C>
void run_rows(const Batch<C>& batch) {
  batch.classes <= kNarrowRow ? run_blocks<C, true>(batch) : run_blocks<C, false>(batch);
}

template <class C>
C scalar(double number, const optional<Tensor>& tensor) {
  if (!tensor) return C(number);
  C value;
  read(Elements{const_cast<void*>(tensor->const_data_ptr()), tensor->scalar_type()}, 0, 1, &value);
  return value;
}

// Rows that are not ignored, at least 1; a label beyond the classes is an error.
int64_t count_labels(const Tensor& labels, int64_t classes, int64_t ignore) {
  const int64_t* y = data<int64_t>(labels);
  int64_t count = 0;
  for (int64_t i = 0; i < labels.numel(); ++i) {
    if (y[i] == ignore) continue;
    require(
        0 <= y[i] && y[i] < classes, "labels: expected 0 to ", classes - 1, " or ignore_index ",
        ignore, ", got ", y[i]);
    ++count;
  }
  return std::max<int64_t>(count, 1);
}

Elements elements(const Tensor& x) {
  return {const_cast<void*>(x.const_data_ptr()), x.scalar_type()};
}

// The inputs that both directions share, made contiguous and kept alive.
template <class C>
struct Prepared {
  explicit Prepared(const KDArguments& given)
      : student(as_contiguous(given.student)),
        teacher(as_contiguous(given.teacher)),
        batch{elements(student), elements(teacher)} {
    batch.rows = student.size(0), batch.classes = student.size(1);
    batch.ignore = given.ignore_index;
    batch.settings = {
        scalar<C>(given.temperature, given.temperature_tensor),
        scalar<C>(given.ce_weight, given.ce_weight_tensor),
        scalar<C>(given.kd_weight, given.kd_weight_tensor)};
    batch.smoothing = C(given.label_smoothing);
    batch.ce_coefficient = batch.settings.ce_weight;
    counted = std::max<int64_t>(batch.rows, 1);
    if (given.labels) take(*given.labels);
    if (given.reduction == KDReduction::mean)
      batch.ce_coefficient *= C(std::max<int64_t>(batch.rows, 1)) / C(counted);
  }

  void take(const Tensor& given) {
    if (given.scalar_type() == ScalarType::Long) {
      labels = as_contiguous(given);
      batch.labels = data<int64_t>(labels);
      counted = count_labels(labels, batch.classes, batch.ignore);
    } else {
      labels = as_parameter(given, accumulation_type(student));
      batch.weights = data<C>(labels);
    }
  }

  Tensor student, teacher, labels;
  Batch<C> batch;
  int64_t counted;  // rows of the mean of the cross-entropy
};

template <class C>
void reduce(const Prepared<C>& prepared, KDReduction reduction, C* loss, C* parts) {
  const Batch<C>& batch = prepared.batch;
  if (reduction == KDReduction::none) {
    for (int64_t i = 0; i < batch.rows; ++i)
      loss[i] = kd_loss_of(batch.ce[i], batch.kl[i], batch.settings);
    return;
  }
  double ce = 0, kl = 0;
  for (int64_t i = 0; i < batch.rows; ++i) ce += batch.ce[i], kl += batch.kl[i];
  if (reduction == KDReduction::mean) {
    ce /= double(prepared.counted);
    kl /= double(std::max<int64_t>(batch.rows, 1));
  }
  parts[0] = C(ce), parts[1] = C(kl);
  *loss = kd_loss_of(parts[0], parts[1], batch.settings);
}

}  // namespace

tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kd_loss_forward(
    const KDArguments& given, bool with_grad) {
  given.check();
  const KDOutputs out(given, with_grad);
  const auto work = [&](auto zero) {
    using C = decltype(zero);
    Prepared<C> prepared(given);
    prepared.batch.ce = mutable_data<C>(out.ce), prepared.batch.kl = mutable_data<C>(out.kl);
    if (with_grad) prepared.batch.grad = elements(out.grad);
    run_rows(prepared.batch);
    reduce(prepared, given.reduction, mutable_data<C>(out.loss), mutable_data<C>(out.parts));
  };
  given.student.scalar_type() == ScalarType::Double ? work(double{}) : work(float{});
  return out.all();
}

Tensor kd_loss_backward(const Tensor& grad, const KDArguments& given) {
  given.check();
  given.check_upstream(grad);
  const Tensor result = KDOutputs::gradient(given.student, true);
  const auto work = [&](auto zero) {
    using C = decltype(zero);
    Prepared<C> prepared(given);
    const Tensor upstream = as_parameter(grad, accumulation_type(given.student));
    prepared.batch.upstream = data<C>(upstream);
    prepared.batch.upstream_stride = grad.dim();
    if (given.reduction == KDReduction::mean) prepared.batch.scale = C(given.inverse_rows());
    prepared.batch.grad = elements(result);
    run_rows(prepared.batch);
  };
  given.student.scalar_type() == ScalarType::Double ? work(double{}) : work(float{});
  return result;
}

}  // namespace daqakd::cpu
