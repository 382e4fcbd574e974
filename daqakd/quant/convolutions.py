"""Convolutions of one and three dimensions, and transposed ones, with quantized input and weights.

A transposed convolution's weight is ``[in, out / groups, ...]``: its output channels lie on the
second axis. With one step per channel each index of that axis has one; where there are groups, the
output channels of the same place in every group share a step, and a depthwise layer has a single
one.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from .layers import QuantLayer


class QuantConv1d(QuantLayer, nn.Conv1d):
    """``nn.Conv1d`` with fake-quantized input and weights."""

    plain = nn.Conv1d

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Convolve."""
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


class QuantConv3d(QuantLayer, nn.Conv3d):
    """``nn.Conv3d`` with fake-quantized input and weights."""

    plain = nn.Conv3d

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Convolve."""
        y: Tensor = self._conv_forward(x, weight, bias)
        return y


class QuantTransposed(QuantLayer):
    """Base of transposed convolutions; per channel: one step per ``weight.shape[1]``."""

    channel_axis = 1
    operation: Callable[..., Tensor]
    dimensions: int

    @staticmethod
    def output_channels(layer: Any) -> int:
        """Return the channels of all groups."""
        width: int = layer.weight.shape[1] * layer.groups
        return width

    @staticmethod
    def multiply_adds(layer: Any, x: Tensor, out: Tensor) -> int:
        """Return how many a call did: each input meets the weights of its channel."""
        return x.numel() * int(layer.weight[0].numel())

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Quantize input and weights, convolve.

        Args:
            x: ``[B, C, ...]`` or ``[C, ...]``.
            output_size: as for torch's layer.
        """
        return super().forward(x, output_size)

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Convolve; ``rest`` is the size of the output."""
        layer: Any = self
        geometry = layer.stride, layer.padding, layer.kernel_size, self.dimensions, layer.dilation
        padding = layer._output_padding(x, *rest, *geometry)
        options = layer.stride, layer.padding, padding, layer.groups, layer.dilation
        return type(self).operation(x, weight, bias, *options)


class QuantConvTranspose1d(QuantTransposed, nn.ConvTranspose1d):
    """``nn.ConvTranspose1d`` with fake-quantized input and weights."""

    plain = nn.ConvTranspose1d
    operation = staticmethod(functional.conv_transpose1d)
    dimensions = 1


class QuantConvTranspose2d(QuantTransposed, nn.ConvTranspose2d):
    """``nn.ConvTranspose2d`` with fake-quantized input and weights."""

    plain = nn.ConvTranspose2d
    operation = staticmethod(functional.conv_transpose2d)
    dimensions = 2


class QuantConvTranspose3d(QuantTransposed, nn.ConvTranspose3d):
    """``nn.ConvTranspose3d`` with fake-quantized input and weights."""

    plain = nn.ConvTranspose3d
    operation = staticmethod(functional.conv_transpose3d)
    dimensions = 3
