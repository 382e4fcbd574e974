"""``export_program``: a student as a program of torch.export, which needs none of this package."""

import io
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import check_module, path_of
from .._errors import InputError, first_line
from .._files import write_bytes
from .example import Example, inputs_of, open_shapes
from .standalone import standalone


def export_program(
    student: nn.Module,
    path: str | Path,
    example: Example,
    *,
    fold_batchnorm: bool = True,
    dynamic_batch: bool = True,
) -> None:
    """Write a student as a ``.pt2`` file, replaced atomically; ``torch.export.load`` reads it.

    Its formulas are plain ATen operations, in eval mode; the weights are full-precision numbers.

    Args:
        student: what :func:`daqakd.quantize` returned, calibrated.
        path: of the file.
        example: a batch: a tensor, a tuple of tensors, or a dictionary of keyword arguments.
        fold_batchnorm: first :func:`daqakd.fold_batchnorm`.
        dynamic_batch: leave the first dimension of all inputs open.

    Raises:
        InputError: no student, or one that torch cannot export.
        OSError: the file cannot be written.
    """
    check_module("student", student)
    place = path_of("path", path)
    args, kwargs = inputs_of(example)
    twin = standalone(student, fold_batchnorm)
    content = io.BytesIO()
    torch.export.save(_exported(twin, args, kwargs, dynamic_batch), content)
    write_bytes(place, content.getvalue())


def _exported(
    model: nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor], dynamic_batch: bool
) -> Any:
    shapes = open_shapes(args, kwargs) if dynamic_batch else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.export.export(model, args, kwargs, dynamic_shapes=shapes)
    except InputError:
        raise
    except Exception as error:  # whatever a stranger's code raises while it is traced
        raise InputError(
            f"student: torch.export cannot take it ({first_line(error)}); make its forward pass"
            " traceable, or pass dynamic_batch=False"
        ) from error
