"""The Triton backend of the distillation loss."""

from typing import Any

import torch
from torch import Tensor

from ..._kd import KDSettings
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


def _counted(labels: Tensor | None, settings: KDSettings, programs: int) -> Tensor | None:
    """Return the number of rows in a mean's cross-entropy, None where the programs count it."""
    if labels is None or labels.is_floating_point():
        return None
    mean = settings.reduction == REDUCTION_CODES["mean"]
    if not mean or programs * len(labels) <= COUNTED_IN_PLACE:
        return None
    return (labels != settings.ignore_index).sum()


def _launch(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    settings: KDSettings,
    upstream: Tensor | None = None,
    **outputs: Tensor | None,
) -> None:
    """Launch the kernel that both directions have; ``outputs`` by their names in ``Tensors``."""
    kernel = kernels("kd_loss")
    programs = kernel.programs(*student.shape)
    given = None if labels is None else labels.contiguous()
    soft = given is not None and given.is_floating_point()
    tensors = kernel.Tensors(
        student.contiguous(),
        teacher.contiguous(),
        None if soft else given,
        given if soft else None,
        *settings.tensors,
        counted=_counted(labels, settings, programs),
        upstream=upstream,
        row_sums=torch.empty(programs, 2, dtype=torch.float64, device=student.device),
        counter=_counter(student),
        **outputs,
    )
    scale = 1.0 / len(student) if settings.reduction == REDUCTION_CODES["mean"] else 1.0
    numbers = kernel.Numbers(
        *settings.numbers, settings.label_smoothing, scale, settings.ignore_index
    )
    launch(student, kernel.kd_loss, tensors, numbers, settings.reduction)


@implement
def kd_loss_forward(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *arguments, with_grad = rest
    settings = KDSettings(*arguments)
    per_row = settings.reduction == REDUCTION_CODES["none"]
    rows, classes = student.shape
    new = torch.empty if rows else torch.zeros
    loss, reduced, ce, kl = (
        new(shape, dtype=torch.float32, device=student.device)
        for shape in ((rows,) if per_row else (), 0 if per_row else 2, rows, rows)
    )
    grad = student.new_empty(rows if with_grad else 0, classes)
    if rows:
        outputs = {"loss": loss, "reduced": reduced, "ce": ce, "kl": kl}
        _launch(student, teacher, labels, settings, grad=grad if with_grad else None, **outputs)
    return loss, reduced, ce, kl, grad


@implement
def kd_loss_backward(
    grad: Tensor, student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any
) -> Tensor:
    result = student.new_empty(student.shape)
    if len(student):
        upstream = grad.contiguous()
        _launch(student, teacher, labels, KDSettings(*rest), upstream, grad=result)
    return result
