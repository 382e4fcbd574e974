"""The Triton backend: adapters from the ops to ``daqakd.kernels``."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from .._ops import LIBRARY, MANY
from ._layout import dense, in_strides_of, memory_view

# the ops daqakd.kernels has kernels for
QUANTIZERS = frozenset({"lsq", "pact", "dorefa_activation", "dorefa_weight", "ewgs"})
STEMS = QUANTIZERS | MANY | {"cmi", "kd_loss"}
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


def kernels(stem: str) -> ModuleType:
    """Import kernels at their first call: importing Triton takes a while."""
    from importlib import import_module

    return import_module(f"daqakd.kernels.{stem}")


def launch(x: Tensor, launcher: Any, *arguments: Any) -> None:
    """Call a launcher of ``daqakd.kernels`` on the device of ``x``."""
    if x.device.type != "cuda":
        return launcher(*arguments)
    with torch.cuda.device(x.device):
        launcher(*arguments)


def _lsq_forward(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        launch(x, kernels("lsq").lsq_forward, x, steps, y, view, qmin, qmax)
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
        launch(x, kernels("lsq").lsq_backward, *arguments)
    return dx, ds


def _new_mask(x: Tensor, per_byte: int) -> Tensor:
    return torch.empty(-(-x.numel() // per_byte), dtype=torch.uint8, device=x.device)


def _pact_forward(
    x: Tensor, alpha: Tensor, bits: int, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    x = dense(x)
    y, mask = torch.empty_like(x), _new_mask(x, 4)
    if x.numel():
        view, levels = memory_view(x, axis), alpha.float().contiguous()
        launch(x, kernels("pact").pact_forward, x, levels, y, mask, view, bits, signed)
    return y, mask


def _pact_backward(
    grad: Tensor, mask: Tensor, alpha: Tensor, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    grad = dense(grad)
    dx, dalpha = torch.empty_like(grad), torch.zeros_like(alpha, dtype=torch.float32)
    if grad.numel():
        arguments = grad, mask, dx, dalpha, memory_view(grad, axis), signed
        launch(grad, kernels("pact").pact_backward, *arguments)
    return dx, dalpha


def _dorefa_activation_forward(x: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    x = dense(x)
    y, mask = torch.empty_like(x), _new_mask(x, 8)
    if x.numel():
        launch(x, kernels("dorefa").dorefa_activation_forward, x, y, mask, bits, signed)
    return y, mask


def _dorefa_activation_backward(grad: Tensor, mask: Tensor) -> Tensor:
    grad = dense(grad)
    dx = torch.empty_like(grad)
    if grad.numel():
        launch(grad, kernels("dorefa").dorefa_activation_backward, grad, mask, dx)
    return dx


def _dorefa_weight_forward(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    w = dense(w)
    y, scale = torch.empty_like(w), torch.zeros((), dtype=torch.float32, device=w.device)
    if w.numel():
        launch(w, kernels("dorefa").dorefa_weight_forward, w, y, scale, bits)
    return y, scale


def _dorefa_weight_backward(
    grad: Tensor, w: Tensor, maximum: Tensor, bits: int, detach_max: bool
) -> Tensor:
    w = dense(w)
    grad, dw = in_strides_of(grad, w), torch.empty_like(w)
    if w.numel():
        arguments = grad, w, maximum.float(), dw, bits, detach_max
        launch(w, kernels("dorefa").dorefa_weight_backward, *arguments)
    return dw


def _ewgs_forward(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        launch(x, kernels("ewgs").ewgs_forward, x, lower.float(), upper.float(), y, bits)
    return y


def _ewgs_backward(
    grad: Tensor,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    bits: int,
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    x = dense(x)
    grad, dx = in_strides_of(grad, x), torch.empty_like(x)
    dlower, dupper = (torch.zeros_like(end, dtype=torch.float32) for end in (lower, upper))
    if x.numel():
        scale = None if delta_tensor is None else delta_tensor.float()
        arguments = grad, x, lower.float(), upper.float(), dx, dlower, dupper, bits, delta, scale
        launch(x, kernels("ewgs").ewgs_backward, *arguments)
    return dx, dlower, dupper


IMPLEMENTATIONS: dict[str, Callable[..., Any]] = {
    "lsq_forward": _lsq_forward,
    "lsq_backward": _lsq_backward,
    "pact_forward": _pact_forward,
    "pact_backward": _pact_backward,
    "dorefa_activation_forward": _dorefa_activation_forward,
    "dorefa_activation_backward": _dorefa_activation_backward,
    "dorefa_weight_forward": _dorefa_weight_forward,
    "dorefa_weight_backward": _dorefa_weight_backward,
    "ewgs_forward": _ewgs_forward,
    "ewgs_backward": _ewgs_backward,
}


def register(implementations: dict[str, Callable[..., Any]]) -> None:
    """Make these the ``triton`` overloads, where there is a Triton."""
    for name, function in implementations.items() if INSTALLED else ():
        LIBRARY.impl(f"{name}.triton", function, "CUDA")
        if INTERPRETED:
            LIBRARY.impl(f"{name}.triton", function, "CPU")


register(IMPLEMENTATIONS)
