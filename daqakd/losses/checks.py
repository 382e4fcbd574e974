"""Checks of what two models' taps give, before a loss compares it."""

import math
from numbers import Real
from typing import Any

from torch import Tensor, nn

from .._errors import InputError, seen
from .base import Maps, Setup, check_maps


def check_pairs(loss: nn.Module, setup: Setup, dimensions: int) -> None:
    """Raise InputError where taps do not have so many dimensions, or other rows per batch."""
    check_maps(loss, [*setup.student, *setup.teacher], dimensions)
    for s, t in zip(setup.student, setup.teacher, strict=True):
        if len(s) != len(t):
            raise InputError(
                f"{type(loss).__name__}: of one batch the student's tap gives {list(s.shape)} and"
                f" the teacher's {list(t.shape)}; name taps that give one row per image"
            )


def check_same_shape(loss: nn.Module, student: Maps, teacher: Maps) -> None:
    """Raise InputError where a student's value has another shape than its teacher's."""
    for s, t in zip(student, teacher, strict=True):
        if s.shape != t.shape:
            raise InputError(
                f"{type(loss).__name__}: the student's tap gives {list(s.shape)} and the teacher's"
                f" {list(t.shape)}, expected one shape; choose a teacher that fits, or other taps"
            )


def check_normalisable(loss: nn.Module, maps: Tensor) -> None:
    """Raise InputError where a BatchNorm in training has one value ``[1, C, 1, 1]`` per channel."""
    if loss.training and maps.shape[0] * maps.shape[2:].numel() == 1:
        raise InputError(
            f"{type(loss).__name__}: its BatchNorm needs more than one value per channel, got maps"
            f" {list(maps.shape)}; use a larger batch size"
        )


def check_number(name: str, value: Any, above: float = 0.0, most: float = math.inf) -> None:
    """Raise InputError for what is no finite number above one, up to another."""
    number = isinstance(value, Real) and not isinstance(value, bool)
    if not number or not above < value <= most or value == math.inf:
        end = "" if most == math.inf else f", {most:g} at most"
        raise InputError(f"{name}: expected a number above {above:g}{end}, got {seen(value)}")
