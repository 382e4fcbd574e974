#pragma once

#include "check.h"

namespace daqakd {

constexpr double kLowestTemperature = 0x1p-60;  // and its reciprocal the highest: T^2 is finite

enum class KDReduction : int64_t { none = 0, mean = 1, sum = 2 };

// The arguments of both directions of kd_loss; see daqakd/_ops.py.
struct KDArguments {
  const Tensor &student, &teacher;  // [B, C]
  const optional<Tensor>& labels;   // int64 [B], or floating-point [B, C]
  double temperature, ce_weight, kd_weight;
  const optional<Tensor>&temperature_tensor, &ce_weight_tensor, &kd_weight_tensor;  // []
  double label_smoothing;
  int64_t ignore_index;
  KDReduction reduction;

  bool has_hard_labels() const { return labels && labels->scalar_type() == ScalarType::Long; }
  bool is_unreduced() const { return reduction == KDReduction::none; }
  double inverse_rows() const { return 1.0 / double(std::max<int64_t>(student.size(0), 1)); }

  void check() const {
    check_input("student", student);
    require(
        student.dim() == 2 && student.size(1) > 0, "student: expected [B, C], C >= 1, got ",
        student.dim(), "-D");
    check_like("teacher", teacher, 2);
    if (labels) check_like("labels", *labels, has_hard_labels() ? 1 : 2);
    check_parameter("temperature", temperature_tensor, student);
    check_parameter("ce_weight", ce_weight_tensor, student);
    check_parameter("kd_weight", kd_weight_tensor, student);
    check_numbers();
  }

  void check_upstream(const Tensor& grad) const {
    check_like("grad", grad, is_unreduced() ? 1 : 0);
    check_floating("grad", grad);
  }

 private:
  void check_numbers() const {
    require(
        temperature_tensor ||
            (kLowestTemperature <= temperature && temperature <= 1 / kLowestTemperature),
        "temperature: expected from 2^-60 to 2^60, got ", temperature);
    check_number("ce_weight", ce_weight);
    check_number("kd_weight", kd_weight);
    require(
        0 <= label_smoothing && label_smoothing < 1, "label_smoothing: expected 0 <= e < 1, got ",
        label_smoothing);
    require(
        KDReduction::none <= reduction && reduction <= KDReduction::sum,
        "reduction: expected a code from 0 to 2, got ", int64_t(reduction));
  }

  // The first `dim` sizes of the student's logits, its device, and numbers that can be read.
  void check_like(const char* name, const Tensor& x, int64_t dim) const {
    bool same = x.dim() == dim;
    for (int64_t d = 0; same && d < dim; ++d) same = x.size(d) == student.size(d);
    require(same, name, ": expected the first ", dim, " sizes of the student's logits");
    check_beside(name, x, student);
    if (x.scalar_type() != ScalarType::Long || dim != 1) check_floating(name, x);
  }
};

struct KDOutputs {
  KDOutputs(const KDArguments& given, bool with_grad)
      : ce(rows(given)),
        kl(rows(given)),
        loss(given.is_unreduced() ? rows(given) : empty(ce, nullptr, 0, type(given))),
        parts(vector(ce, given.is_unreduced() ? 0 : 2, type(given))),
        grad(gradient(given.student, with_grad)) {}

  tuple<Tensor, Tensor, Tensor, Tensor, Tensor> all() const { return {loss, parts, ce, kl, grad}; }

  static ScalarType type(const KDArguments& given) { return accumulation_type(given.student); }
  static Tensor vector(const Tensor& model, int64_t size, ScalarType type) {
    return empty(model, &size, 1, type);
  }
  static Tensor rows(const KDArguments& given) {
    return vector(given.student, given.student.size(0), type(given));
  }
  static Tensor gradient(const Tensor& student, bool with_grad) {
    const int64_t sizes[2] = {with_grad ? student.size(0) : 0, student.size(1)};
    return empty(student, sizes, 2, student.scalar_type());
  }

  Tensor ce, kl, loss, parts, grad;
};

}  // namespace daqakd
