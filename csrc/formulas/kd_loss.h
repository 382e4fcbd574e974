#pragma once

#include "../common/exp.h"

namespace daqakd {

// Hinton et al. 2015: ce_weight * CE(z, y) + kd_weight * T^2 * KL(softmax(t / T) || softmax(z /
// T)), in the compute type C. Logits are relative to the largest of their row; 0 * infinity is 0.
template <class C>
struct KDSettings {
  C temperature, ce_weight, kd_weight;

  DAQAKD_INLINE C divergence_weight() const { return kd_weight * temperature * temperature; }
};

// Of one class: e^z, e^(z / T), e^(t / T).
template <class C>
struct KDExponentials {
  C exp_z, exp_z_T, exp_t_T;
};

// Sums over the classes of a row: of its exponentials, and of e^(t / T) * (t - z) / T.
template <class C>
struct KDSums {
  C exp_z, exp_z_T, exp_t_T, kl_terms;
};

// A row's target w: the sums over its classes of w and of w * z.
template <class C>
struct KDTarget {
  C weight, logit;
};

// A row's cross-entropy and divergence, and what multiplies its exponentials and its target in
// the gradient.
template <class C>
struct KDRow {
  C ce, kl, exp_z_scale, exp_z_T_scale, exp_t_T_scale, target_scale;
};

template <class C>
DAQAKD_INLINE KDExponentials<C> kd_exponentials(C z, C t, C inverse) {  // inverse = 1 / T
  return {exp_of(z), exp_of(z * inverse), exp_of(t * inverse)};
}

// The same for T = 1, 2 or 4: e^z is a power of e^(z / T), which saves an exponential.
template <int kPower, class C>
DAQAKD_INLINE KDExponentials<C> kd_exponentials_by_power(C z, C t, C inverse) {
  const C exp_z_T = exp_of(z * inverse), square = exp_z_T * exp_z_T;
  const C exp_z = kPower == 4 ? square * square : (kPower == 2 ? square : exp_z_T);
  return {exp_z, exp_z_T, exp_of(t * inverse)};
}

template <class C>
DAQAKD_INLINE C kd_kl_term(C exp_t_T, C z, C t, C inverse) {
  return exp_t_T == C(0) ? C(0) : exp_t_T * ((t - z) * inverse);
}

template <class C>
DAQAKD_INLINE C kd_weighted(C weight, C z) {
  return weight == C(0) ? C(0) : weight * z;
}

// A target of weight 0 is an ignored row. ce_coefficient is ce_weight, for a mean times the rows
// over those that are not ignored.
template <class C>
DAQAKD_INLINE KDRow<C> kd_row(
    const KDSums<C>& sums, const KDTarget<C>& target, C ce_coefficient,
    const KDSettings<C>& settings) {
  const C kd_coefficient = settings.kd_weight * settings.temperature;
  const C kl = sums.kl_terms / sums.exp_t_T + (log_of(sums.exp_z_T) - log_of(sums.exp_t_T));
  const C ce = target.weight * log_of(sums.exp_z) - target.logit;
  return {
      target.weight == C(0) ? C(0) : ce,
      kl,
      ce_coefficient * target.weight / sums.exp_z,
      kd_coefficient / sums.exp_z_T,
      kd_coefficient / sums.exp_t_T,
      target.weight == C(0) ? C(0) : ce_coefficient};
}

// One class of the student's gradient, but for its target.
template <class C>
DAQAKD_INLINE C kd_gradient(const KDExponentials<C>& e, const KDRow<C>& row) {
  return e.exp_z * row.exp_z_scale +
         (e.exp_z_T * row.exp_z_T_scale - e.exp_t_T * row.exp_t_T_scale);
}

template <class C>
DAQAKD_INLINE C kd_loss_of(C ce, C kl, const KDSettings<C>& settings) {
  return settings.ce_weight * ce + settings.divergence_weight() * kl;
}

}  // namespace daqakd
