"""How the adapters reach ``daqakd.kernels``, and where they can run."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..._ops import LIBRARY, MANY

# the ops daqakd.kernels has kernels for
QUANTIZERS = frozenset({"lsq", "pact", "dorefa_activation", "dorefa_weight", "ewgs"})


STEMS = QUANTIZERS | MANY | {"cmi", "kd_loss", "augment"}


DTYPES = (torch.float16, torch.bfloat16, torch.float32)


PIXELS = {"augment": (torch.uint8,)}  # ops whose input is no floating-point tensor


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
    accepted = PIXELS.get(op, DTYPES)
    if dtype not in accepted:
        known = ", ".join(str(known).removeprefix("torch.") for known in accepted)
        return f"the Triton kernels take {known}, not {dtype}"
    return None


def kernels(stem: str) -> ModuleType:
    """Import kernels at their first call: importing Triton takes a while."""
    from importlib import import_module

    return import_module(f"daqakd.kernels.{stem}")


def launch(x: Tensor, launcher: Callable[..., None], *arguments: Any) -> None:
    """Call a launcher of ``daqakd.kernels`` on the device of ``x``."""
    if x.device.type != "cuda":
        return launcher(*arguments)
    with torch.cuda.device(x.device):
        launcher(*arguments)


def new_mask(x: Tensor, per_byte: int) -> Tensor:
    return torch.empty(-(-x.numel() // per_byte), dtype=torch.uint8, device=x.device)


def register(implementations: dict[str, Callable[..., Any]]) -> None:
    """Make these the ``triton`` overloads, where there is a Triton."""
    for name, function in implementations.items() if INSTALLED else ():
        LIBRARY.impl(f"{name}.triton", function, "CUDA")
        if INTERPRETED:
            LIBRARY.impl(f"{name}.triton", function, "CPU")
