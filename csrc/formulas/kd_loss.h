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

// Sums over the classes of a row: of its exponentials, and of e^(t / T) * (t - z) / T; its spread.
template <class C>
struct KDSums {
  C exp_z, exp_z_T, exp_t_T, kl_terms, spread;
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

// From here on the divergence may be far below the logarithms whose difference it is.
constexpr int kCentredTemperature = 32;

// e^x - 1 - x: a series where the difference would lose digits, infinity beyond e^80.
template <class C>
DAQAKD_INLINE C kd_excess(C x) {
  C series = C(1);
  for (int n = sizeof(C) == 8 ? 20 : 12; n > 2; --n) series = series * (x * (C(1) / C(n))) + C(1);
  const C large = x < C(80) ? (exp_of(x) - C(1)) - x : C(INFINITY);
  return std::fabs(x) <= C(1) ? C(0.5) * x * x * series : large;
}

template <class C>
DAQAKD_INLINE C kd_log1p(C x) {
  const C u = C(1) + x;
  return log_of(u) + (x - (u - C(1))) / u;
}

// A row seen from the mean of d = (z - t) / T under its teacher p: with x = d - mean, the
// divergence is log(1 + spread), spread = sum of p * (e^x - 1 - x), and no term is negative. A
// class that the teacher rules out adds what the student gives it.
template <class C>
struct KDCentre {
  KDCentre() = default;
  DAQAKD_INLINE KDCentre(C exp_t_T, C kl_terms)  // sums of the row
      : total(exp_t_T),
        mean(-kl_terms / exp_t_T),
        outside(std::fabs(mean) < C(80) ? exp_of(-mean) : C(INFINITY)) {}

  // One class's part of the spread, times `total`; d = (z - t) / T.
  DAQAKD_INLINE C term(C exp_z_T, C exp_t_T, C d) const {
    return exp_t_T == C(0) ? exp_z_T * outside : exp_t_T * kd_excess(d - mean);
  }

  // What stands for e^(z / T) in the gradient of a row that is centred.
  DAQAKD_INLINE C difference(C exp_z_T, C exp_t_T, C d) const {
    const C x = d - mean;
    return exp_t_T == C(0) ? exp_z_T * outside : exp_t_T * ((x + kd_excess(x)) - spread);
  }

  DAQAKD_INLINE bool holds() const { return spread < C(0.5); }  // beyond, logarithms keep digits

  C total, mean, outside;
  C spread = C(INFINITY);
};

// A target of weight 0 is an ignored row. ce_coefficient is ce_weight, for a mean times the rows
// over those that are not ignored.
template <class C>
DAQAKD_INLINE KDRow<C> kd_row(
    const KDSums<C>& sums, const KDTarget<C>& target, C ce_coefficient,
    const KDSettings<C>& settings) {
  const C kd_coefficient = settings.kd_weight * settings.temperature;
  const bool centred = sums.spread < C(0.5);
  const C difference = sums.kl_terms / sums.exp_t_T + (log_of(sums.exp_z_T) - log_of(sums.exp_t_T));
  const C kl = centred ? kd_log1p(sums.spread) : difference;
  const C exp_z_T = centred ? sums.exp_t_T * (C(1) + sums.spread) : sums.exp_z_T;
  const C ce = target.weight * log_of(sums.exp_z) - target.logit;
  return {
      target.weight == C(0) ? C(0) : ce,
      kl,
      ce_coefficient * target.weight / sums.exp_z,
      kd_coefficient / exp_z_T,
      centred ? C(0) : kd_coefficient / sums.exp_t_T,
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
