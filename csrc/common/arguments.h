#pragma once

#include "../formulas/codes.h"
#include "check.h"

// What each quantizer's op demands of its arguments, on every device.
namespace daqakd {

constexpr int64_t kLargestCode = 1 << 16;  // codes stay far below where rounding by additions ends

inline void check_codes(int64_t qmin, int64_t qmax) {
  require(
      -kLargestCode <= qmin && qmin <= qmax && qmax <= kLargestCode, "qmin, qmax: expected ",
      -kLargestCode, " <= qmin <= qmax <= ", kLargestCode, ", got ", qmin, " and ", qmax);
}

inline void check_ste(int64_t ste) {
  require(0 <= ste && ste <= 2, "ste: expected a code from 0 to 2, got ", ste);
}

inline void check_lsq(
    const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax, optional<int64_t> axis) {
  check_input("x", x);
  check_parameter("step", step, x, axis);
  check_codes(qmin, qmax);
}

inline void check_lsq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t qmin, int64_t qmax,
    optional<int64_t> axis, int64_t ste, double grad_scale) {
  check_lsq(x, step, qmin, qmax, axis);
  check_same("grad", grad, x);
  check_ste(ste);
  check_number("grad_scale", grad_scale);
}

inline void check_lsq_many(
    const Tensors& x, const Tensors& step, const Integers& qmin, const Integers& qmax) {
  check_some("x", x);
  check_lengths(x.size(), {step.size(), qmin.size(), qmax.size()});
  for (size_t i = 0; i < x.size(); ++i)
    check_lsq(x[i], step[i], qmin[i], qmax[i], row_axis(step[i]));
}

inline void check_lsq_many_backward(
    const Tensors& grad, const Tensors& x, const Tensors& step, const Integers& qmin,
    const Integers& qmax, int64_t ste, const std::vector<double>& grad_scale) {
  check_lsq_many(x, step, qmin, qmax);
  check_lengths(x.size(), {grad.size(), grad_scale.size()});
  check_ste(ste);
  for (size_t i = 0; i < x.size(); ++i) {
    check_same("grad", grad[i], x[i]);
    check_number("grad_scale", grad_scale[i]);
  }
}

inline void check_pact(
    const Tensor& x, const Tensor& alpha, int64_t bits, bool is_signed, optional<int64_t> axis) {
  check_input("x", x);
  check_parameter("alpha", alpha, x, axis);
  check_bits(bits, is_signed);
}

inline void check_pact_backward(
    const Tensor& grad, const Tensor& mask, const Tensor& alpha, optional<int64_t> axis) {
  check_input("grad", grad);
  check_parameter("alpha", alpha, grad, axis);
  check_mask(mask, grad, 2);
}

inline void check_dorefa_activation(const Tensor& x, int64_t bits, bool is_signed) {
  check_input("x", x);
  check_bits(bits, is_signed);
}

inline void check_dorefa_activation_backward(const Tensor& grad, const Tensor& mask) {
  check_input("grad", grad);
  check_mask(mask, grad, 1);
}

inline void check_dorefa_weight(const Tensor& w, int64_t bits) {
  check_input("w", w);
  check_bits(bits, false);
}

inline void check_dorefa_weight_backward(
    const Tensor& grad, const Tensor& w, const Tensor& maximum, int64_t bits) {
  check_dorefa_weight(w, bits);
  check_same("grad", grad, w);
  check_parameter("maximum", maximum, w, std::nullopt);
}

inline int64_t check_dorefa_weight_many(const Tensors& w, const Integers& bits) {
  const int64_t count = check_some("w", w);
  check_lengths(w.size(), {bits.size()});
  for (const int64_t width : bits) check_bits(width, false);
  return count;
}

inline void check_dorefa_weight_many_backward(
    const Tensors& grad, const Tensors& w, const Tensor& maximum, const Integers& bits) {
  check_dorefa_weight_many(w, bits);
  check_lengths(w.size(), {grad.size(), size_t(maximum.numel())});
  check_floating("maximum", maximum);
  check_beside("maximum", maximum, w[0]);
  for (size_t i = 0; i < w.size(); ++i) check_same("grad", grad[i], w[i]);
}

inline void check_ewgs(const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits) {
  check_input("x", x);
  check_parameter("lower", lower, x, std::nullopt);
  check_parameter("upper", upper, x, std::nullopt);
  check_bits(bits, false);
}

inline void check_ewgs_backward(
    const Tensor& grad, const Tensor& x, const Tensor& lower, const Tensor& upper, int64_t bits,
    double delta, const optional<Tensor>& delta_tensor) {
  check_ewgs(x, lower, upper, bits);
  check_same("grad", grad, x);
  check_number("delta", delta);
  check_parameter("delta_tensor", delta_tensor, x);
}

inline void check_lsqplus(const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits) {
  check_input("x", x);
  check_parameter("step", step, x, std::nullopt);
  check_parameter("offset", offset, x, std::nullopt);
  check_bits(bits, false);
}

inline void check_lsqplus_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, const Tensor& offset, int64_t bits,
    double grad_scale) {
  check_lsqplus(x, step, offset, bits);
  check_same("grad", grad, x);
  check_number("grad_scale", grad_scale);
}

inline void check_seq(const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis) {
  check_input("x", x);
  check_parameter("step", step, x, axis);
  require(2 <= levels && levels <= 256, "levels: expected 2 to 256, got ", levels);
}

inline void check_seq_backward(
    const Tensor& grad, const Tensor& x, const Tensor& step, int64_t levels, optional<int64_t> axis,
    double grad_scale) {
  check_seq(x, step, levels, axis);
  check_same("grad", grad, x);
  check_number("grad_scale", grad_scale);
}

inline void check_ewgs_many(
    const Tensors& x, const Tensors& lower, const Tensors& upper, const Integers& bits) {
  check_some("x", x);
  check_lengths(x.size(), {lower.size(), upper.size(), bits.size()});
  for (size_t i = 0; i < x.size(); ++i) check_ewgs(x[i], lower[i], upper[i], bits[i]);
}

inline void check_ewgs_many_backward(
    const Tensors& grad, const Tensors& x, const Tensors& lower, const Tensors& upper,
    const Integers& bits, double delta, const optional<Tensor>& delta_tensor) {
  check_ewgs_many(x, lower, upper, bits);
  check_lengths(x.size(), {grad.size()});
  check_number("delta", delta);
  check_parameter("delta_tensor", delta_tensor, x[0]);
  for (size_t i = 0; i < x.size(); ++i) check_same("grad", grad[i], x[i]);
}

inline void check_code_grid(
    const Tensor& x, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed) {
  const Method known = Method(method);
  require(
      Method::lsq <= known && known <= Method::ewgs, "method: expected a code of 1 to 4, got ",
      method);
  check_bits(bits, is_signed);
  require(!is_signed || known != Method::ewgs, "signed: ewgs has no signed codes; give False");
  require(
      parameter.has_value() == (known <= Method::pact),
      "parameter: expected a step for lsq, an alpha for pact, and None for dorefa and ewgs");
  check_parameter("parameter", parameter, x);
}

inline void check_codes_pack(
    const Tensor& y, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed) {
  check_input("y", y);
  check_code_grid(y, parameter, method, bits, is_signed);
}

inline void check_codes_unpack(
    const Tensor& codes, const optional<Tensor>& parameter, int64_t method, int64_t bits,
    bool is_signed, int64_t count, ScalarType type) {
  check_tensor("codes", codes);
  check_code_grid(codes, parameter, method, bits, is_signed);
  require(
      is_floating(type), "dtype: expected a floating-point type of 16 to 64 bits, got ",
      name_of(type));
  const int64_t per_byte = 8 / slot_bits(bits), bytes = codes.numel();
  require(
      codes.scalar_type() == ScalarType::Byte && codes.dim() == 1 && codes.is_contiguous() &&
          count >= 0 && bytes == count / per_byte + (count % per_byte != 0),
      "codes: expected the contiguous bytes of ", count, " codes of ", bits, " bits, got ", bytes,
      " of ", name_of(codes.scalar_type()));
}

}  // namespace daqakd
