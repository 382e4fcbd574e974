"""Brevitas: ``IntQuant``, the integer quantizer inside its layers."""

from functools import cache
from typing import Any

import torch
from torch import Tensor

from ..measure import Provider, with_convention
from ..quantizer import BITS, broadcast

OPS = ("lsq",)


@cache
def _quantizer() -> Any:
    from brevitas.core.quant import IntQuant

    return IntQuant(narrow_range=False, signed=True, input_view_impl=torch.nn.Identity())


@with_convention("inputs up to half a level beyond the range count as inside it")
def fake_quantize(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by the step of a tensor, or of each channel."""
    y: Tensor = _quantizer()(
        broadcast(step, form),
        torch.zeros((), device=x.device),
        torch.full((), float(BITS), device=x.device),
        x,
    )
    return y


def providers(op: str, device: str) -> dict[str, Provider]:
    """Return Brevitas' provider of an op."""
    return {"brevitas": fake_quantize} if op in OPS else {}
