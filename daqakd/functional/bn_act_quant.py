"""Batch norm, residual, activation and fake quantization in two passes over the input."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from .._errors import InputError, unknown
from .._ops import ACTIVATION_CODES, METHOD_CODES
from ..backends import choose
from . import _checks
from ._apply import first_order, implementation, split_scalar
from ._bn_checks import check_codes, check_norm, check_quantizer, check_residual
from ._bn_formula import activated, packed, quantized

Activation = Literal["none", "relu", "relu6"]


class QuantizerSettings(NamedTuple):
    """The quantizer of the activation."""

    method: int = 0  # of METHOD_CODES, or none
    parameter: Tensor | None = None
    upper: Tensor | None = None
    widths: tuple[int, bool] = (8, False)  # bits, signed
    # ste, grad_scale, delta as number or tensor
    gradient: tuple[int, float, float, Tensor | None] = (0, 1.0, 0.0, None)


UNQUANTIZED = QuantizerSettings()


class Settings(NamedTuple):
    """What the op takes besides the tensors that have gradients."""

    backend: str
    running: tuple[Tensor | None, Tensor | None]
    training: bool
    momentum: tuple[float, Tensor | None]
    eps: float
    activation: int
    quantizer: QuantizerSettings
    with_activation: bool
    with_codes: bool = False


class BNActQuantFunction(torch.autograd.Function):
    """Gradients through the quantizer, the activation, the sum and the norm, recomputed from x."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        residual: Tensor | None,
        weight: Tensor | None,
        bias: Tensor | None,
        parameter: Tensor | None,
        upper: Tensor | None,
        given: Settings,
    ) -> tuple[Tensor, ...]:
        """Normalize, add, activate and quantize, keeping ``x``, the residual and the statistics."""
        y, t, statistics, codes = implementation("bn_act_quant_forward", given.backend)(
            *(x, residual, weight, bias, *given.running, given.training, *given.momentum),
            *(given.eps, given.activation, given.quantizer.method, parameter, upper),
            *(*given.quantizer.widths, given.with_activation, given.with_codes),
        )
        ctx.save_for_backward(x, residual, statistics, weight, bias, parameter, upper)
        ctx.set_materialize_grads(False)
        ctx.given = given
        if not given.with_codes:
            return y, t
        ctx.mark_non_differentiable(codes)
        return y, t, codes

    @staticmethod
    @first_order
    def backward(
        ctx: Any, grad: Tensor | None, grad_t: Tensor | None, *codes: None
    ) -> tuple[Tensor | None, ...]:
        """Return the gradients of x, the residual, weight, bias and the quantizer's parameters."""
        x, residual, statistics, weight, bias, parameter, upper = ctx.saved_tensors
        given = ctx.given
        dx, dresidual, dnorm, dparameter, dupper = implementation(
            "bn_act_quant_backward", given.backend
        )(
            *(grad, grad_t, x, residual, statistics, weight, bias, given.training),
            *(given.activation, given.quantizer.method, parameter, upper),
            *(*given.quantizer.widths, *given.quantizer.gradient, ctx.needs_input_grad[1]),
        )
        found = dx, dresidual, *dnorm.unbind(), dparameter, dupper
        tensors = x, residual, weight, bias, parameter, upper
        pairs = zip(found, tensors, strict=True)
        return *(None if one is None else gradient for gradient, one in pairs), None


def run_checked(
    x: Tensor, residual: Tensor | None, weight: Tensor | None, bias: Tensor | None, given: Settings
) -> tuple[Tensor, ...]:
    """Return the quantized activation, the activation, empty where not asked for, and the codes.

    Codes that nobody asked for are left out. Nothing is checked.
    """
    q = given.quantizer
    found: tuple[Tensor, ...] = BNActQuantFunction.apply(
        x, residual, weight, bias, q.parameter, q.upper, given
    )
    return found


def bn_act_quant(
    x: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    training: bool = True,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-5,
    activation: Activation = "relu",
    method: str | None = None,
    parameters: Sequence[Tensor] = (),
    bits: int = 8,
    signed: bool = False,
    ste: str = "closed",
    grad_scale: float | None = None,
    delta: float | Tensor = 0.0,
    with_activation: bool = False,
    with_codes: bool = False,
    backend: str | None = None,
) -> Any:
    """Batch norm, a residual, an activation and a quantizer as one op [BatchNorm; method's paper].

    ``t = act((x - mean) / sqrt(var + eps) * weight + bias + residual)``, quantized. Two passes over
    x forward (one with running statistics) and two backward take the place of up to ten; for the
    backward pass only x, the residual and two numbers per channel are kept. All maths between
    loading and storing is float32 (float64 for float64), so 16-bit activations are rounded once.

    Args:
        x: ``[N, C, *]``, float16, bfloat16, float32 or float64; any dense layout without a copy.
        running_mean: ``[C]``, float32 (float64 with float64 x), or None; with ``training`` updated
            in place.
        running_var: likewise; updated with the unbiased variance.
        weight: ``[C]`` or None for ones.
        bias: ``[C]`` or None for zeros.
        residual: like x; added after the norm.
        training: normalize by the batch's statistics, else by the running ones.
        momentum: weight of the batch in the running statistics; a 0-dim tensor may change.
        eps: added to the variance.
        activation: ``"none"``, ``"relu"`` or ``"relu6"``.
        method: quantizer of the activation: ``"lsq"``, ``"pact"``, ``"dorefa"``, ``"ewgs"``, or
            None to return the activation as it is.
        parameters: of the quantizer, one value each: ``(step,)``, ``(alpha,)``, ``()`` or
            ``(lower, upper)``.
        bits: as for the quantizer's own function, like the next four.
        signed: negative codes, for a quantizer after ``"none"``.
        ste: of LSQ.
        grad_scale: of LSQ's step.
        delta: of EWGS.
        with_activation: also return the activation itself, for a shortcut or a pool.
        with_codes: also return the packed codes of the quantized values, written in the same pass:
            uint8, in memory order, low bits first, 1, 2, 4 or 8 bits each, from the lowest code on.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        The quantized activation, shape, dtype and strides of ``x``; where asked for, a tuple of it,
        the activation and the codes. Without a method the first two are the activation.

    Raises:
        InputError: a wrong dtype, shape, bit width, activation, method, ``ste`` or backend, one
            value per channel in training, no statistics to use, or codes without a method or in an
            exported program.

    >>> x = torch.tensor([[-1.0], [0.0], [1.0]])
    >>> bn_act_quant(x, method="pact", parameters=(torch.tensor(1.5),), bits=2).flatten()
    tensor([0., 0., 1.])
    """
    _checks.flag("training", training)
    check_codes(with_codes, method)
    norm = {"running_mean": running_mean, "running_var": running_var}
    check_norm(x, {**norm, "weight": weight, "bias": bias}, training)
    check_residual(residual, x)
    if activation not in ACTIVATION_CODES:
        raise unknown("activation", str(activation), list(ACTIVATION_CODES))
    parameter, upper = check_quantizer(x, method, parameters, bits, signed)
    scale = 1.0 if grad_scale is None else _checks.real("grad_scale", grad_scale)
    number, tensor = split_scalar(delta, "delta")
    if _checks.real("eps", eps) < 0:
        raise InputError(f"eps: expected a finite number from 0 on, got {eps}")
    if torch.compiler.is_compiling() or torch.compiler.is_exporting():
        norm_of = running_mean, running_var, weight, bias, residual, training, momentum, eps
        t = activated(x, *norm_of, activation)
        y = quantized(t, method, parameters, bits, signed, ste, grad_scale, delta)
        results = [y, t] if with_activation else [y]
        if with_codes:
            level = parameter if upper is None else None
            results.append(packed(y, METHOD_CODES[str(method)], level, bits, signed, backend))
        return tuple(results) if results[1:] else y
    given = Settings(
        choose("bn_act_quant", x, backend),
        (running_mean, running_var),
        training,
        split_scalar(momentum, "momentum"),
        float(eps),
        ACTIVATION_CODES[activation],
        QuantizerSettings(
            METHOD_CODES.get(str(method), 0),
            parameter,
            upper,
            (bits, signed),
            (_checks.ste_code(ste), scale, number, tensor),
        ),
        with_activation and method is not None,
        with_codes,
    )
    y, t, *codes = run_checked(x, residual, weight, bias, given)
    if with_activation:
        return y, y if method is None else t, *codes
    return (y, *codes) if codes else y
