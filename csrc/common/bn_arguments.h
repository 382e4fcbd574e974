#pragma once

#include "../formulas/bn_act_quant.h"
#include "arguments.h"

namespace daqakd {

// The quantizer of an activation, and what its gradient needs, as the schema lists them.
struct QuantizerArguments {
  Method method;
  optional<Tensor> parameter, upper;
  int64_t bits;
  bool is_signed;
  STE ste = STE::closed;
  double grad_scale = 1, delta = 0;
  optional<Tensor> delta_tensor = std::nullopt;

  // What the levels are multiples of, where that is a parameter.
  optional<Tensor> level() const { return method == Method::ewgs ? std::nullopt : parameter; }

  int64_t lowest() const { return is_signed ? -(int64_t(1) << (bits - 1)) : 0; }
  int64_t highest() const { return (int64_t(1) << (is_signed ? bits - 1 : bits)) - 1; }

  void check_codes(bool with_codes) const {
    require(
        !with_codes || method != Method::none,
        "with_codes: method 0 has no codes; give a quantizer, or with_codes=False");
  }

  void check(const Tensor& x) const {
    require(
        Method::none <= method && method <= Method::ewgs,
        "method: expected a code from 0 to 4, got ", int64_t(method));
    const bool takes = method == Method::lsq || method == Method::pact || method == Method::ewgs;
    require(
        takes == parameter.has_value(), "parameter: method ", int64_t(method), " takes ",
        takes ? "one" : "none");
    require(
        (method == Method::ewgs) == upper.has_value(), "upper: method ", int64_t(method), " takes ",
        method == Method::ewgs ? "one" : "none");
    check_parameter("parameter", parameter, x);
    check_parameter("upper", upper, x);
    check_bits(bits, is_signed);
    require(
        !is_signed || method != Method::ewgs,
        "signed: ewgs has no signed form; give a lower end below 0");
    check_ste(int64_t(ste));
    check_number("grad_scale", grad_scale);
    check_number("delta", delta);
    check_parameter("delta_tensor", delta_tensor, x);
  }
};

// Input, what is added to its norm, the activation and the quantizer.
struct BNArguments {
  Tensor x;
  optional<Tensor> residual, weight, bias;
  bool training;
  Activation activation;
  QuantizerArguments quantizer;

  void check() const {
    check_input("x", x);
    require(x.dim() >= 2, "x: expected [N, C, ...], got ", x.dim(), " dimensions");
    if (weight) check_parameter("weight", *weight, x, 1);
    if (bias) check_parameter("bias", *bias, x, 1);
    if (residual) check_same("residual", *residual, x);
    require(
        Activation::none <= activation && activation <= Activation::relu6,
        "activation: expected a code from 0 to 2, got ", int64_t(activation));
    quantizer.check(x);
  }
};

// Where the batch's statistics are kept for evaluation, and how much of them.
struct RunningStatistics {
  optional<Tensor> mean, var;
  double momentum;
  optional<Tensor> momentum_tensor;
  double eps;

  static void check_one(const char* name, const optional<Tensor>& value, const Tensor& x) {
    if (!value) return;
    check_parameter(name, *value, x, 1);
    require(
        value->scalar_type() == accumulation_type(x) && value->is_contiguous(), name,
        ": expected contiguous ", name_of(accumulation_type(x)), " for this input");
  }

  void check(const Tensor& x, bool training) const {
    check_one("running_mean", mean, x);
    check_one("running_var", var, x);
    require(
        mean.has_value() == var.has_value() && (training || mean.has_value()),
        "running_mean, running_var: expected both, or none where the batch's statistics are used");
    check_number("momentum", momentum);
    check_parameter("momentum_tensor", momentum_tensor, x);
    require(0 <= eps && eps <= DBL_MAX, "eps: expected a finite number from 0 on, got ", eps);
  }
};

inline void check_bn_backward(
    const optional<Tensor>& grad, const optional<Tensor>& grad_activation, const Tensor& statistics,
    const BNArguments& given) {
  given.check();
  if (grad) check_same("grad", *grad, given.x);
  if (grad_activation) check_same("grad_activation", *grad_activation, given.x);
  require(
      statistics.dim() == 2 && statistics.size(0) == 2 && statistics.size(1) == given.x.size(1) &&
          statistics.scalar_type() == accumulation_type(given.x) && statistics.is_contiguous(),
      "statistics: expected contiguous ", name_of(accumulation_type(given.x)), " of shape 2 x ",
      given.x.size(1));
  check_beside("statistics", statistics, given.x);
}

}  // namespace daqakd
