"""The Triton backend of the distillation loss."""

from typing import Any

import torch
from torch import Tensor

from ..._ops import REDUCTION_CODES
from ._launch import implement, kernels, launch

_COUNTERS: dict[tuple[int, int], Tensor] = {}
COUNTED_IN_PLACE = 2**21  # labels that the programs of one launch may read to count them


def _counter(x: Tensor) -> Tensor:
    """Return a zero that every launch leaves at zero: the stream's, or a captured graph's own."""
    if x.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
        return torch.zeros((), dtype=torch.int32, device=x.device)
    key = x.device.index, torch.cuda.current_stream(x.device).cuda_stream
    if key not in _COUNTERS:
        _COUNTERS[key] = torch.zeros((), dtype=torch.int32, device=x.device)
    return _COUNTERS[key]


def _kd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    arguments: tuple[Any, ...],
    upstream: Tensor | None,
    outputs: tuple[Tensor | None, ...],
) -> None:
    """Launch on what both directions share; ``outputs`` are loss, parts, ce, kl and grad."""
    temperature, ce_weight, kd_weight, *settings, smoothing, ignore, reduction = arguments
    hard = labels is not None and not labels.is_floating_point()
    given = None if labels is None else labels.contiguous()
    launches = kernels("kd_loss").programs(*student.shape)
    counted = None
    if hard and reduction == REDUCTION_CODES["mean"] and launches * len(student) > COUNTED_IN_PLACE:
        counted = (labels != ignore).sum()
    row_sums = torch.empty(launches, 2, dtype=torch.float64, device=student.device)
    tensors = (
        *(student.contiguous(), teacher.contiguous()),
        *((given, None) if hard else (None, given)),
        *(*settings, counted, upstream, row_sums, _counter(student), *outputs),
    )
    scale = 1.0 / len(student) if reduction == REDUCTION_CODES["mean"] else 1.0
    numbers = temperature, ce_weight, kd_weight, smoothing, scale, ignore
    launch(student, kernels("kd_loss").kd_loss, tensors, numbers, reduction)


@implement
def kd_loss_forward(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *rest, with_grad = arguments
    each = rest[-1] == REDUCTION_CODES["none"]
    rows, classes = student.shape
    new = torch.empty if rows else torch.zeros
    loss, parts, ce, kl = (
        new(shape, dtype=torch.float32, device=student.device)
        for shape in ((rows,) if each else (), 0 if each else 2, rows, rows)
    )
    grad = student.new_empty(rows if with_grad else 0, classes)
    if rows:
        outputs = loss, parts, ce, kl, grad if with_grad else None
        _kd_loss(student, teacher, labels, tuple(rest), None, outputs)
    return loss, parts, ce, kl, grad


@implement
def kd_loss_backward(
    grad: Tensor, student: Tensor, teacher: Tensor, labels: Tensor | None, *arguments: Any
) -> Tensor:
    result = student.new_empty(student.shape)
    if len(student):
        outputs = None, None, None, None, result
        _kd_loss(student, teacher, labels, arguments, grad.contiguous(), outputs)
    return result
