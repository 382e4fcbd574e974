#pragma once

#include "../common/exp.h"

namespace daqakd {

// a * CE(z, y) + b * T^2 * KL(softmax(t / T) || softmax(z / T)), Hinton et al. 2015, in the compute
// type C. Logits are taken relative to the largest of their row; 0 times an infinity is 0.
template <class C>
struct KDSettings {
  C temperature, ce_weight, kd_weight;

  DAQAKD_INLINE C divergence_weight() const { return kd_weight * temperature * temperature; }
};

// The exponentials of one class: e^z, e^(z / T), e^(t / T).
template <class C>
struct KDClass {
  C hard, soft, teacher;
};

// Sums over the classes of a row: its exponentials, and of e^(t / T) * (t - z) / T.
template <class C>
struct KDSums {
  C hard, soft, teacher, cross;
};

// What a row's target adds: the sums of w and of w * z.
template <class C>
struct KDTarget {
  C weight, logit;
};

// A row's cross-entropy and divergence, and what multiplies its exponentials and its target in
// the gradient.
template <class C>
struct KDRow {
  C ce, kl, hard, soft, teacher, target;
};

template <class C>
DAQAKD_INLINE KDClass<C> kd_class(C z, C t, C inverse) {  // inverse = 1 / T
  return {exp_of(z), exp_of(z * inverse), exp_of(t * inverse)};
}

// The same for T = 1, 2 or 4: e^z is a power of e^(z / T), which saves an exponential.
template <int kPower, class C>
DAQAKD_INLINE KDClass<C> kd_class_by_power(C z, C t, C inverse) {
  const C soft = exp_of(z * inverse), square = soft * soft;
  const C hard = kPower == 4 ? square * square : (kPower == 2 ? square : soft);
  return {hard, soft, exp_of(t * inverse)};
}

template <class C>
DAQAKD_INLINE C kd_cross(C teacher, C z, C t, C inverse) {
  return teacher == C(0) ? C(0) : teacher * ((t - z) * inverse);
}

template <class C>
DAQAKD_INLINE C kd_weighted(C weight, C z) {
  return weight == C(0) ? C(0) : weight * z;
}

// A weight of 0 is an ignored row. `hard` is e^z's coefficient before the row's own scale: a, for a
// mean times the rows over those that are not ignored.
template <class C>
DAQAKD_INLINE KDRow<C> kd_row(
    const KDSums<C>& sums, const KDTarget<C>& target, C hard, const KDSettings<C>& settings) {
  const C soft = settings.kd_weight * settings.temperature;
  const C kl = sums.cross / sums.teacher + (log_of(sums.soft) - log_of(sums.teacher));
  const C ce = target.weight * log_of(sums.hard) - target.logit;
  return {
      target.weight == C(0) ? C(0) : ce,
      kl,
      hard * target.weight / sums.hard,
      soft / sums.soft,
      soft / sums.teacher,
      target.weight == C(0) ? C(0) : hard};
}

// One class of the student's gradient, but for its target.
template <class C>
DAQAKD_INLINE C kd_gradient(const KDClass<C>& e, const KDRow<C>& row) {
  return e.hard * row.hard + (e.soft * row.soft - e.teacher * row.teacher);
}

template <class C>
DAQAKD_INLINE C kd_loss_of(C ce, C kl, const KDSettings<C>& settings) {
  return settings.ce_weight * ce + settings.divergence_weight() * kl;
}

}  // namespace daqakd
