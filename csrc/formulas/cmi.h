#pragma once

#include "../common/explog64.h"

namespace daqakd {

// Contextual mutual information [MCMI] of rows of logits, in double whatever is stored. Sums over a
// row have 32 lanes, element k in lane k % 32, added as add_lanes does: CPU and GPU agree in bits.
constexpr int kRowLanes = 32;
constexpr int kExtraColumns = 5;  // mass, entropy, cross-entropy, correct, invalid
constexpr double kLargestCrossEntropy = 4096.0;

// Weights are e^(z - peak); `rest` is their sum without the peak's own, which is 1.
struct CMIRow {
  CMIRow() = default;
  DAQAKD_INLINE CMIRow(double peak, int64_t at, double rest, double terms)
      : peak(peak),
        reciprocal(1.0 / (1.0 + rest)),
        log_total(log1p64(rest)),
        entropy(log_total - terms * reciprocal),
        at(at) {}

  DAQAKD_INLINE bool valid() const { return entropy == entropy; }
  DAQAKD_INLINE double log_probability(double z) const { return (z - peak) - log_total; }
  DAQAKD_INLINE double probability(double z) const { return exp64(z - peak) * reciprocal; }

  double peak, reciprocal, log_total, entropy;
  int64_t at;  // the first class that has the peak
};

// One class's part of `terms`: 0 where a class has no weight.
DAQAKD_INLINE double cmi_term(double weight, double shifted) {
  return weight == 0.0 ? 0.0 : weight * shifted;
}

// What a row adds to a class beside its probabilities; `z` is the logit of that class.
DAQAKD_INLINE double cmi_extra(const CMIRow& row, int column, int64_t label, double z) {
  const double surprise = -row.log_probability(z);
  const double bounded = surprise > kLargestCrossEntropy ? kLargestCrossEntropy : surprise;
  if (!row.valid()) return column == 4 ? 1.0 : 0.0;
  return column == 0   ? 1.0
         : column == 1 ? row.entropy
         : column == 2 ? bounded
         : column == 3 ? double(row.at == label)
                       : 0.0;
}

// A number as integers in units of 2^-36 and 2^-72, which add up in any order.
struct Limbs {
  DAQAKD_INLINE explicit Limbs(double value) {
    const double scaled = value * 0x1p36;
    high = int64_t(scaled);
    high -= double(high) > scaled;  // down, not towards zero
    low = int64_t(round_half_even((scaled - double(high)) * 0x1p36));
  }

  int64_t high, low;
};

// ln p - ln r of one class, 0 where the prediction has no weight.
DAQAKD_INLINE double cmi_log_ratio(
    double probability, double log_probability, double log_reference) {
  return probability == 0.0 ? 0.0 : log_probability - log_reference;
}

// The logarithm of a centroid's largest probability, given the sum of those unlike it: 1 - rest
// would lose a small rest.
DAQAKD_INLINE double cmi_log_peak(double peak, double rest) {
  const bool normalised = std::fabs(peak + rest - 1.0) < 1e-9;
  return normalised && rest < peak ? log1p64(-rest) : log64(peak);
}

}  // namespace daqakd
