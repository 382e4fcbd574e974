"""The distillation loss in plain PyTorch."""

from typing import Any

import torch
from torch import Tensor

from ..._kd import KDSettings
from ..._ops import REDUCTION_CODES, accumulation_dtype
from ._common import implement, to_accumulation_dtype

CENTRED_TEMPERATURE = 32.0  # from here on a KL may be far below the logarithms it is made of


def _targets(labels: Tensor, z: Tensor, settings: KDSettings) -> tuple[Tensor, Tensor]:
    """Return target distributions ``[B, C]`` and which rows count ``[B]``."""
    if labels.is_floating_point():
        rows, valid = labels.to(z.dtype), torch.ones_like(z[:, 0], dtype=torch.bool)
    else:
        valid = labels != settings.ignore_index
        rows = torch.zeros_like(z).scatter_(1, torch.where(valid, labels, 0)[:, None], 1.0)
    smoothing = settings.label_smoothing
    rows = rows * (1 - smoothing) + smoothing / z.shape[1]
    return torch.where(valid[:, None], rows, 0.0), valid


def _expect(weights: Tensor, values: Tensor) -> Tensor:
    """Row sums of ``weights * values`` where 0 times an infinity is 0."""
    return torch.where(weights == 0, 0.0, weights * values).sum(1)


def _excess(x: Tensor) -> Tensor:
    """Return e^x - 1 - x, by a series where the difference would lose digits."""
    series = torch.ones_like(x)
    for n in range(20, 2, -1):
        series = series * (x / n) + 1
    return torch.where(x.abs() <= 1, 0.5 * x * x * series, torch.expm1(x) - x)


def _centred(z: Tensor, t: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's spread ``[B, 1]`` and T times its gradient, as ``KDCentre`` has them."""
    z, t = ((x - x.amax(1, keepdim=True)) / temperature for x in (z, t))
    teacher, total = t.exp(), t.exp().sum(1, keepdim=True)
    none = teacher == 0
    d = torch.where(none, 0.0, z - t)
    mean = (teacher * d).sum(1, keepdim=True) / total
    x, outside = d - mean, (z - mean).exp()
    spread = torch.where(none, outside, teacher * _excess(x)).sum(1, keepdim=True) / total
    difference = torch.where(none, outside, teacher * ((x + _excess(x)) - spread))
    return spread, difference / (total * (1 + spread))


def _divergence(z: Tensor, t: Tensor, temperature: float | Tensor) -> tuple[Tensor, Tensor]:
    """Return each row's KL ``[B]`` and T times its gradient ``[B, C]``."""
    log_student = torch.log_softmax(z / temperature, 1)
    log_teacher = torch.log_softmax(t / temperature, 1)
    teacher = log_teacher.exp()
    kl, gradient = _expect(teacher, log_teacher - log_student), log_student.exp() - teacher
    if not isinstance(temperature, Tensor) and temperature < CENTRED_TEMPERATURE:
        return kl, gradient
    spread, difference = _centred(z, t, temperature)
    high = torch.as_tensor(temperature, device=z.device) >= CENTRED_TEMPERATURE
    small = (spread < 0.5) & high
    kl = torch.where(small[:, 0], torch.log1p(spread[:, 0]), kl)
    return kl, torch.where(small, difference, gradient)


def _cross_entropy(
    z: Tensor, labels: Tensor, settings: KDSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's CE ``[B]``, its gradient ``[B, C]`` and how many rows count (1 or more)."""
    targets, valid = _targets(labels, z, settings)
    log_p = torch.log_softmax(z, 1)
    gradient = log_p.exp() * targets.sum(1, keepdim=True) - targets
    return -_expect(targets, log_p), gradient, valid.sum().clamp(min=1).to(z.dtype)


def _kd_loss(
    student: Tensor, teacher: Tensor, labels: Tensor | None, settings: KDSettings
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Return loss, reduced CE and KL, each row's CE and KL, and the gradient, not yet rounded."""
    z = to_accumulation_dtype(student)
    t = to_accumulation_dtype(teacher).to(accumulation_dtype(student.dtype))
    temperature, ce_weight, kd_weight = settings.values(z.dtype)
    rows, mean = max(z.shape[0], 1), settings.reduction == REDUCTION_CODES["mean"]
    kl, difference = _divergence(z, t, temperature)
    ce, grad = torch.zeros_like(kl), kd_weight * temperature * difference
    counted: Tensor | int = rows
    if labels is not None:
        ce, ce_grad, counted = _cross_entropy(z, labels, settings)
        # a mean's gradient is stored times the rows: divided, 16-bit entries would be subnormal
        grad = (ce_weight * (rows / counted) if mean else ce_weight) * ce_grad + grad
    kl_weight = kd_weight * temperature * temperature
    if settings.reduction == REDUCTION_CODES["none"]:
        return ce_weight * ce + kl_weight * kl, ce.new_empty(0), ce, kl, grad
    divisors = (counted, rows) if mean else (1, 1)
    reduced = torch.stack((ce.sum() / divisors[0], kl.sum() / divisors[1]))
    return ce_weight * reduced[0] + kl_weight * reduced[1], reduced, ce, kl, grad


@implement
def kd_loss_forward(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *settings, with_grad = rest
    loss, reduced, ce, kl, grad = _kd_loss(student, teacher, labels, KDSettings(*settings))
    grad = grad.to(student.dtype) if with_grad else student.new_empty((0, student.shape[1]))
    return loss, reduced, ce, kl, grad


@implement
def kd_loss_backward(
    grad: Tensor, student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any
) -> Tensor:
    settings = KDSettings(*rest)
    *_, dz = _kd_loss(student, teacher, labels, settings)
    mean = settings.reduction == REDUCTION_CODES["mean"]
    scale = grad.to(dz.dtype) * (1.0 / max(dz.shape[0], 1) if mean else 1.0)
    return (dz * (scale if grad.dim() == 0 else scale[:, None])).to(student.dtype)
