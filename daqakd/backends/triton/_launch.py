"""How the adapters reach ``daqakd.kernels``, and where they are registered."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from ..._ops import LIBRARY
from ..contract import checked

INSTALLED = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # Triton, too, reads it once
DEVICES = ("cuda", "cpu") if INTERPRETED else ("cuda",)


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


def implement(function: Callable[..., Any]) -> Callable[..., Any]:
    """Make this the ``triton`` overload of the op of the same name, where there is a Triton."""
    for device in DEVICES if INSTALLED else ():
        LIBRARY.impl(f"{function.__name__}.triton", checked(function), device.upper())
    return function
