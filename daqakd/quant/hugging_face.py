"""Hugging Face's ``Conv1D``, the linear layer of GPT-2 with its weight transposed: ``x @ W + b``.

Known by the name of its class and module, so that transformers is no dependency.
"""

from typing import Any

import torch
from torch import Tensor, nn

from .layers import QuantLayer

NAME = "Conv1D"
MODULES = ("transformers.pytorch_utils", "transformers.modeling_utils")
MADE: dict[type, type[QuantLayer]] = {}  # by the class of the library


class QuantTransposedLinear(QuantLayer):
    """Base of quantized ``Conv1D``: weight ``[in, out]``, one step per index of ``out``."""

    channel_axis = 1

    @staticmethod
    def output_channels(layer: Any) -> int:
        """Return the width of the output."""
        width: int = layer.weight.shape[1]
        return width

    @staticmethod
    def multiply_adds(layer: Any, x: Tensor, out: Tensor) -> int:
        """Return how many a call did."""
        return out.numel() * int(layer.weight.shape[0])

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Multiply, as the library does."""
        assert bias is not None
        y = torch.addmm(bias, x.reshape(-1, x.shape[-1]), weight)
        return y.view(*x.shape[:-1], -1)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be pickled by the library's class: this one is found in no module."""
        return _empty, (self.plain,), self.__dict__


def is_conv1d(kind: type) -> bool:
    """Return whether a class is the library's ``Conv1D``."""
    return kind.__name__ == NAME and kind.__module__ in MODULES


def quantized_conv1d(plain: type[nn.Module]) -> type[QuantLayer]:
    """Return the quantized form of the library's class, a subclass of it, always the same."""
    if plain not in MADE:
        members = {"plain": plain, "__doc__": f"``{NAME}`` with fake-quantized input and weights."}
        members["__module__"] = __name__
        MADE[plain] = type(f"Quant{NAME}", (QuantTransposedLinear, plain), members)
    return MADE[plain]


def _empty(plain: type[nn.Module]) -> nn.Module:
    kind = quantized_conv1d(plain)
    return kind.__new__(kind)
