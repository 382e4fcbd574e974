"""The truth: every op in plain PyTorch with explicit masks, any device, float64 included.

Gradients never go through ``clamp``: its gradient at the bounds differs between releases.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .._ops import LIBRARY, REDUCTION_CODES, STE_CODES, accumulation_dtype
from ._layout import broadcast, like, pack, reduce_to, unflat, unpack

SMALLEST = 2.0**-30  # steps, clipping levels and ranges are used as at least this
IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {}


def implement(function: Callable[..., Any]) -> Callable[..., Any]:
    name = function.__name__
    IMPLEMENTATIONS[name] = function
    LIBRARY.impl(f"{name}.reference", function, "CompositeExplicitAutograd")
    return function


def _wide(x: Tensor) -> Tensor:
    return x.to(accumulation_dtype(x.dtype))


def _round(x: Tensor) -> Tensor:
    """Round half to even; a code of zero is +0, as the kernels' rounding by two additions gives."""
    return torch.round(x) + 0.0


def _positive(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Return the parameter in the compute dtype, kept positive, shaped to broadcast."""
    wide = parameter.to(accumulation_dtype(x.dtype))
    return broadcast(torch.where(wide < SMALLEST, SMALLEST, wide), x, axis)


@implement
def lsq_forward(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    s = _positive(step, x, axis)
    return like(_round(torch.clamp(_wide(x) / s, qmin, qmax)) * s, x)


@implement
def lsq_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    ste: int,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    v = _wide(x) / _positive(step, x, axis)
    if ste == STE_CODES["rounded"]:
        rounded = torch.round(v)
        inside = (rounded >= qmin) & (rounded <= qmax)
    elif ste == STE_CODES["closed"]:
        inside = (v >= qmin) & (v <= qmax)
    else:
        inside = (v > qmin) & (v < qmax)
    g = _wide(grad)
    terms = g * (torch.round(torch.clamp(v, qmin, qmax)) - torch.where(inside, v, 0.0))
    dx = torch.where(inside, g, 0.0)
    return like(dx, x), reduce_to(terms, step, axis) * grad_scale


BELOW, INSIDE, ABOVE, NOT_A_NUMBER = 0, 1, 2, 3  # the 2-bit codes of an unsigned PACT mask


@implement
def pact_forward(
    x: Tensor, alpha: Tensor, bits: int, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    wide, a = _wide(x), _positive(alpha, x, axis)
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    step = a / levels
    y = _round(torch.clamp(wide / step, -levels if signed else 0, levels)) * step
    low = -a if signed else torch.zeros_like(a)
    codes = (wide > low).to(torch.uint8) + (wide >= a)
    codes = codes.masked_fill(torch.isnan(wide), NOT_A_NUMBER)
    return like(y, x), pack(codes, x, 2)


@implement
def pact_backward(
    grad: Tensor, mask: Tensor, alpha: Tensor, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    codes = unflat(unpack(mask, 2, grad.numel()), grad)
    g = _wide(grad)
    terms = torch.where(codes == ABOVE, g, 0.0)
    if signed:
        terms = torch.where(codes == BELOW, -g, terms)
    terms = torch.where(codes == NOT_A_NUMBER, float("nan"), terms)
    return like(torch.where(codes == INSIDE, g, 0.0), grad), reduce_to(terms, alpha, axis)


@implement
def dorefa_activation_forward(x: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    wide, low = _wide(x), -1.0 if signed else 0.0
    levels = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    y = _round(torch.clamp(wide, low, 1.0) * levels) / levels
    inside = (wide >= low) & (wide <= 1.0)
    return like(y, x), pack(inside, x, 1)


@implement
def dorefa_activation_backward(grad: Tensor, mask: Tensor) -> Tensor:
    inside = unflat(unpack(mask, 1, grad.numel()), grad) != 0
    return like(torch.where(inside, grad, 0.0), grad)


def _sign(w: Tensor) -> Tensor:
    """Return the sign of ``w`` with sign(0) = +1 and sign(NaN) = NaN."""
    return torch.where(w < 0, -1.0, torch.where(w >= 0, 1.0, w))


@implement
def dorefa_weight_forward(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    wide = _wide(w)
    if w.numel() == 0:
        return torch.empty_like(w), wide.new_zeros(())
    if bits == 1:
        mean = wide.abs().mean()
        return like(_sign(wide) * mean, w), mean
    t, levels = torch.tanh(wide), 2**bits - 1
    maximum = t.abs().max()
    unit = torch.where(maximum == 0, 0.5, t / (2 * maximum) + 0.5)
    return like(2 * (torch.round(unit * levels) / levels) - 1, w), maximum


@implement
def dorefa_weight_backward(
    grad: Tensor, w: Tensor, maximum: Tensor, bits: int, detach_max: bool
) -> Tensor:
    g, wide = _wide(grad), _wide(w)
    if bits == 1:
        share = 0.0 if detach_max else (g * _sign(wide)).sum() / max(w.numel(), 1)
        return like(g + share * _sign(wide), w)
    t = torch.tanh(wide)
    dt = g / maximum
    if not detach_max:
        at_maximum = t.abs() == maximum
        dmax = -(g * t).sum() / maximum.square()
        dt = dt + torch.where(at_maximum, torch.sign(t) * dmax / at_maximum.sum(), 0.0)
    return like(torch.where(maximum == 0, 0.0, dt * (1 - t * t)), w)


@implement
def ewgs_forward(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    wide, levels = _wide(x), 2**bits - 1
    low = broadcast(lower.to(wide.dtype), x, None)
    width = _positive(upper.to(wide.dtype) - lower.to(wide.dtype), x, None)
    return like(_round(torch.clamp((wide - low) / width, 0.0, 1.0) * levels) / levels, x)


@implement
def ewgs_backward(
    grad: Tensor,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    bits: int,
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    wide, g, levels = _wide(x), _wide(grad), 2**bits - 1
    low = broadcast(lower.to(wide.dtype), x, None)
    width = _positive(upper.to(wide.dtype) - lower.to(wide.dtype), x, None)
    unit = (wide - low) / width
    inside = (unit >= 0) & (unit <= 1)
    unit = torch.clamp(unit, 0.0, 1.0)
    error = unit - torch.round(unit * levels) / levels
    scale = delta if delta_tensor is None else delta_tensor.to(wide.dtype)
    through = (g + scale * g.abs() * error) / width
    dx = torch.where(inside, through, 0.0)
    dlower = reduce_to(dx * (unit - 1), lower, None)
    return like(dx, x), dlower, reduce_to(-dx * unit, upper, None)


def _targets(labels: Tensor, z: Tensor, smoothing: float, ignore: int) -> tuple[Tensor, Tensor]:
    """Return target rows ``[B, C]`` and which rows count ``[B]``."""
    if labels.is_floating_point():
        rows, valid = labels.to(z.dtype), torch.ones_like(z[:, 0], dtype=torch.bool)
    else:
        valid = labels != ignore
        rows = torch.zeros_like(z).scatter_(1, torch.where(valid, labels, 0)[:, None], 1.0)
    rows = rows * (1 - smoothing) + smoothing / z.shape[1]
    return torch.where(valid[:, None], rows, 0.0), valid


def _expect(weights: Tensor, values: Tensor) -> Tensor:
    """Row sums of ``weights * values`` where 0 times an infinity is 0."""
    return torch.where(weights == 0, 0.0, weights * values).sum(1)


def _kd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    temperature_tensor: Tensor | None,
    ce_weight_tensor: Tensor | None,
    kd_weight_tensor: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    reduction: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return loss, reduced parts, each row's CE and KL, and the gradient in the compute dtype."""
    z, t = _wide(student), _wide(teacher).to(accumulation_dtype(student.dtype))
    heat = temperature if temperature_tensor is None else temperature_tensor.to(z.dtype)
    a = ce_weight if ce_weight_tensor is None else ce_weight_tensor.to(z.dtype)
    b = kd_weight if kd_weight_tensor is None else kd_weight_tensor.to(z.dtype)
    log_soft, log_teacher = torch.log_softmax(z / heat, 1), torch.log_softmax(t / heat, 1)
    soft_teacher = log_teacher.exp()
    kl = _expect(soft_teacher, log_teacher - log_soft)
    grad = b * heat * (log_soft.exp() - soft_teacher)
    ce, count = torch.zeros_like(kl), max(z.shape[0], 1)
    counted: Tensor | int = count
    mean = reduction == REDUCTION_CODES["mean"]
    if labels is not None:
        rows, valid = _targets(labels, z, label_smoothing, ignore_index)
        log_hard = torch.log_softmax(z, 1)
        ce = -_expect(rows, log_hard)
        counted = valid.sum().clamp(min=1).to(z.dtype)
        # a mean's gradient is stored times the rows: divided, 16-bit entries would be subnormal
        share = a * (count / counted) if mean else a
        grad = share * (log_hard.exp() * rows.sum(1, keepdim=True) - rows) + grad
    if reduction == REDUCTION_CODES["none"]:
        return a * ce + b * heat * heat * kl, ce.new_empty(0), ce, kl, grad
    divisors = (counted, count) if mean else (1, 1)
    parts = torch.stack((ce.sum() / divisors[0], kl.sum() / divisors[1]))
    return a * parts[0] + b * heat * heat * parts[1], parts, ce, kl, grad


@implement
def kd_loss_forward(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *settings, with_grad = arguments
    loss, parts, ce, kl, grad = _kd_loss(student, teacher, labels, *settings)
    grad = grad.to(student.dtype) if with_grad else student.new_empty((0, student.shape[1]))
    return loss, parts, ce, kl, grad


@implement
def kd_loss_backward(
    grad: Tensor, student: Tensor, teacher: Tensor, labels: Tensor | None, *arguments: Any
) -> Tensor:
    *_, dz = _kd_loss(student, teacher, labels, *arguments)
    mean = arguments[-1] == REDUCTION_CODES["mean"]
    scale = grad.to(dz.dtype) * (1.0 / max(dz.shape[0], 1) if mean else 1.0)
    return (dz * (scale if grad.dim() == 0 else scale[:, None])).to(student.dtype)
