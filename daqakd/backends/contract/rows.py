"""The ops on rows of logits: ``kd_loss`` and CMI."""

from typing import Any

import torch
from torch import Tensor

from ..._cmi import EXTRA_COLUMNS
from ..._kd import KDSettings
from ..._ops import REDUCTION_CODES
from ._arguments import (
    beside,
    floating,
    floating_tensor,
    known_code,
    number,
    one_per_row,
    parameter,
    require,
    within,
)
from ._registry import VALUES, check

TEMPERATURES = 2.0**-60, 2.0**60  # T^2 and its reciprocal are float32 numbers
LARGEST_WEIGHT = 2.0**14  # of a row of CMI: its limbs fit in 64 bits
LARGEST_PROBABILITY = 1.001  # rounding


def _like_logits(name: str, x: Tensor, logits: Tensor, dim: int) -> None:
    require(
        x.shape == logits.shape[:dim],
        f"{name}: expected {tuple(logits.shape[:dim])} for logits {tuple(logits.shape)}, got"
        f" {tuple(x.shape)}",
    )
    beside(name, x, logits)


def _logits(name: str, x: Tensor) -> None:
    floating_tensor(name, x)
    require(
        x.dim() == 2 and x.shape[1] > 0, f"{name}: expected [B, C], C >= 1, got {tuple(x.shape)}"
    )


def _labels(labels: Tensor, logits: Tensor) -> None:
    hard = labels.dtype == torch.int64
    _like_logits("labels", labels, logits, 1 if hard else 2)
    if not hard:
        floating("labels", labels)


def _kd_numbers(settings: KDSettings) -> None:
    low, high = TEMPERATURES
    require(
        settings.temperature_tensor is not None or low <= settings.temperature <= high,
        f"temperature: expected from 2^-60 to 2^60, got {settings.temperature}",
    )
    number("ce_weight", settings.ce_weight)
    number("kd_weight", settings.kd_weight)
    smoothing = settings.label_smoothing
    require(0 <= smoothing < 1, f"label_smoothing: expected 0 <= e < 1, got {smoothing}")
    known_code("reduction", settings.reduction, REDUCTION_CODES)


@check
def kd_loss_forward(student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any) -> None:
    settings = KDSettings(*rest[:-1])
    _logits("student", student)
    floating("teacher", teacher)
    _like_logits("teacher", teacher, student, 2)
    if labels is not None:
        _labels(labels, student)
    for name, value in zip(KDSettings._fields, settings.tensors, strict=False):
        parameter(name, value, student)
    _kd_numbers(settings)


@check
def kd_loss_backward(grad: Tensor, student: Tensor, *rest: Any) -> None:
    kd_loss_forward(student, *rest, False)
    floating("grad", grad)
    unreduced = rest[-1] == REDUCTION_CODES["none"]
    _like_logits("grad", grad, student, 1 if unreduced else 0)


@check
def cmi_update(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    _logits("logits", logits)
    _labels(labels, logits)
    rows, classes = logits.shape
    shape = (classes, classes + EXTRA_COLUMNS, 2)
    fits = state.dim() == 4 and state.shape[1:] == shape and len(state) > 0
    require(
        fits and state.dtype == torch.int64 and state.is_contiguous(),
        f"state: expected contiguous int64 [groups, {', '.join(map(str, shape))}] with a group,"
        f" got {state.dtype} {tuple(state.shape)}",
    )
    beside("state", state, logits)
    one_per_row("weight", weight, rows, logits)
    if weight is not None:
        floating("weight", weight)
    one_per_row("group", group, rows, logits)
    require(
        group is None or group.dtype == torch.int64,
        f"group: expected int64, got {None if group is None else group.dtype}",
    )


@check
def cmi_divergence(logits: Tensor, labels: Tensor, centroids: Tensor) -> None:
    _logits("logits", logits)
    _labels(labels, logits)
    classes = logits.shape[1]
    require(
        centroids.shape == (classes, classes),
        f"centroids: expected [{classes}, {classes}], got {tuple(centroids.shape)}",
    )
    floating("centroids", centroids)
    beside("centroids", centroids, logits)


@check
def cmi_divergence_backward(grad: Tensor, logits: Tensor, *rest: Any) -> None:
    cmi_divergence(logits, *rest)
    floating("grad", grad)
    one_per_row("grad", grad, len(logits), logits)


def _kd_labels(student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any) -> None:
    if labels is not None and labels.dtype == torch.int64:
        kept = labels[labels != KDSettings(*rest[:9]).ignore_index]
        within("labels", kept, 0, student.shape[1] - 1)


def _cmi_labels(logits: Tensor, labels: Tensor, *rest: Any) -> None:
    soft = labels.is_floating_point()
    within("labels", labels, 0, LARGEST_PROBABILITY if soft else logits.shape[1] - 1)


def _cmi_values(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    _cmi_labels(logits, labels)
    within("weight", weight, -LARGEST_WEIGHT, LARGEST_WEIGHT)
    within("group", group, 0, len(state) - 1)


VALUES |= {
    "kd_loss_forward": _kd_labels,
    "kd_loss_backward": lambda grad, *rest: _kd_labels(*rest),
    "cmi_update": _cmi_values,
    "cmi_divergence": _cmi_labels,
    "cmi_divergence_backward": lambda grad, *rest: _cmi_labels(*rest),
}
