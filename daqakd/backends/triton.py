"""The Triton backend: adapters from the ops to ``daqakd.kernels``."""

import os
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._ops import LIBRARY
from ._layout import dense, in_strides_of, memory_view

STEMS: frozenset[str] = frozenset({"lsq"})  # the ops daqakd.kernels has kernels for
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
INSTALLED = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton, too, reads it once


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when a Triton kernel can run ``op``, else the reason in one sentence."""
    if op not in STEMS:
        return f"daqakd.kernels has no {op} kernel in this version"
    if not INSTALLED:
        return "triton is not installed"
    if device != "cuda" and not (device == "cpu" and INTERPRETED):
        return f"the tensors are on {device}, Triton runs on cuda"
    if dtype not in DTYPES:
        known = ", ".join(str(known).removeprefix("torch.") for known in DTYPES)
        return f"the Triton kernels take {known}, not {dtype}"
    return None


def _kernels(stem: str) -> ModuleType:
    """Import kernels at their first call: importing Triton takes a while."""
    from importlib import import_module

    return import_module(f"daqakd.kernels.{stem}")


def _launch(x: Tensor, launcher: Any, *arguments: Any) -> None:
    if x.device.type != "cuda":
        return launcher(*arguments)
    with torch.cuda.device(x.device):
        launcher(*arguments)


def _lsq_forward(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        _launch(x, _kernels("lsq").lsq_forward, x, steps, y, view, qmin, qmax)
    return y


def _lsq_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    ste: int,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    x = dense(x)
    grad = in_strides_of(grad, x)
    dx, ds = torch.empty_like(x), torch.zeros_like(step, dtype=torch.float32)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        arguments = grad, x, steps, dx, ds, view, qmin, qmax, ste, grad_scale
        _launch(x, _kernels("lsq").lsq_backward, *arguments)
    return dx, ds


if INSTALLED:
    for name, function in {"lsq_forward": _lsq_forward, "lsq_backward": _lsq_backward}.items():
        LIBRARY.impl(f"{name}.triton", function, "CUDA")
        if INTERPRETED:
            LIBRARY.impl(f"{name}.triton", function, "CPU")
