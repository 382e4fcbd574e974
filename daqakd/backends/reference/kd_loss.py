"""The distillation loss in plain PyTorch."""

from typing import Any

import torch
from torch import Tensor

from ..._ops import REDUCTION_CODES, accumulation_dtype
from ._common import implement, to_compute


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
    z, t = to_compute(student), to_compute(teacher).to(accumulation_dtype(student.dtype))
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
