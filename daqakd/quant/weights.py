"""Weight quantizers: their parameters start from the weights they are given.

Each also gives its values as integer codes, and the same values from the codes, bit for bit.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from .._ops import SMALLEST
from .base import Quantizer


class WeightQuantizer(Quantizer):
    """Base of weight quantizers: fake quantization, and values to codes of ``bits`` bits and back.

    ``forward`` is :meth:`apply_op`, then :meth:`finish`. ``quantize_many`` is ``apply_op`` on the
    weights of several layers at once.
    """

    def apply_op(self, w: Tensor) -> Tensor:
        """Return the result of the method's op on ``w``."""
        raise NotImplementedError

    @staticmethod
    def quantize_many(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Return ``apply_op`` of every quantizer on its weights, by one call."""
        raise NotImplementedError

    def finish(self, y: Tensor) -> Tensor:
        """Return the weights to compute with, from the op's result."""
        return y

    def forward(self, w: Tensor) -> Tensor:
        """Return the fake-quantized weights."""
        return self.finish(self.apply_op(w))

    def common_settings(self) -> object:
        """Return what the quantizers of one ``quantize_many`` call must have in common."""
        return None

    def op_parameters(self) -> tuple[Tensor, ...]:
        """Return the parameters that the op reads."""
        return ()

    def codes(self, w: Tensor) -> Tensor:
        """Return the codes of the float32 weights, ``uint8`` in [0, 2^bits), shape of ``w``."""
        raise NotImplementedError

    def magnitude(self, w: Tensor) -> Tensor | None:
        """Return the 0-dim factor that neither the codes nor this module hold, if there is one."""
        return None

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return the values ``forward`` gave, float32, from their codes and ``magnitude``."""
        raise NotImplementedError


class LSQWeight(WeightQuantizer):
    """[LSQ] on weights: signed, step from ``2 mean|w| / sqrt(qmax)``, gradient scaled.

    Where all weights are zero, the mean of torch's initialisation for that fan-in takes its place.
    """

    method = "lsq"

    def __init__(self, weight: Tensor, bits: int, per_channel: bool) -> None:
        super().__init__(bits)
        self.axis = 0 if per_channel else None
        self.qmax = 2 ** (bits - 1) - 1
        mean = weight.detach().abs()
        mean = mean.flatten(1).mean(1) if per_channel else mean.mean().reshape(1)
        usual = 0.5 / math.sqrt(max(weight[0].numel(), 1))  # of torch's initialisation, by fan-in
        mean = torch.where(mean == 0, usual, mean)
        self.step = nn.Parameter(2 * mean.float() / math.sqrt(self.qmax))
        self.grad_scale = 1 / math.sqrt(weight.numel() / self.step.numel() * self.qmax)

    @property
    def granularity(self) -> str:
        """``channel`` when every output channel has its own step."""
        return "tensor" if self.axis is None else "channel"

    def step_size(self) -> float:
        """Return the mean step."""
        return self.step.detach().mean().item()

    def apply_op(self, w: Tensor) -> Tensor:
        """Fake-quantize."""
        return F.lsq(
            w, self.step, bits=self.bits, signed=True, axis=self.axis, grad_scale=self.grad_scale
        )

    @staticmethod
    def quantize_many(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Fake-quantize the weights of several layers."""
        return F.lsq_many(
            weights,
            [q.step for q in quantizers],
            bits=[q.bits for q in quantizers],
            signed=True,
            grad_scale=[q.grad_scale for q in quantizers],
        )

    def op_parameters(self) -> tuple[Tensor, ...]:
        """Return the step."""
        return (self.step,)

    def _steps(self, dim: int) -> Tensor:
        """Return the steps as they are used, shaped to broadcast against the weights."""
        step = self.step.detach().clamp(min=SMALLEST)
        return step if self.axis is None else step.reshape(-1, *[1] * (dim - 1))

    def codes(self, w: Tensor) -> Tensor:
        """Return the codes above the lowest one."""
        codes: Tensor = torch.round(self(w) / self._steps(w.dim())) + self.qmax + 1
        return codes.to(torch.uint8)

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return code times step."""
        w: Tensor = (codes.float() - (self.qmax + 1)) * self._steps(codes.dim())
        return w


class DoReFaWeight(WeightQuantizer):
    """[DoReFa] on weights; ``rescale`` gives back the magnitude that the method throws away."""

    method = "dorefa"

    def __init__(self, weight: Tensor, bits: int, rescale: bool) -> None:
        super().__init__(bits)
        largest = weight.detach().abs().max().float() if weight.numel() else torch.ones(())
        rescale = rescale and bits > 1
        self.register_buffer("rescale", largest.reshape(()) if rescale else None)
        self.rescale: Tensor | None

    def step_size(self) -> float:
        """Return the distance of two levels."""
        factor = 1.0 if self.rescale is None else self.rescale.item()
        size: float = 2 * factor / (2**self.bits - 1)
        return size

    def apply_op(self, w: Tensor) -> Tensor:
        """Quantize to [-1, 1]."""
        return F.dorefa_weight(w, bits=self.bits)

    @staticmethod
    def quantize_many(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Quantize the weights of several layers."""
        return F.dorefa_weight_many(weights, bits=[q.bits for q in quantizers])

    def finish(self, y: Tensor) -> Tensor:
        """Give the magnitude back, if it is kept."""
        return y if self.rescale is None else y * self.rescale.to(y.dtype)

    def codes(self, w: Tensor) -> Tensor:
        """Return the levels counted from -1, or the signs as 0 and 1."""
        y = self.apply_op(w)
        codes = y >= 0 if self.bits == 1 else torch.round((y + 1) * (2**self.bits - 1) / 2)
        return codes.to(torch.uint8)

    def magnitude(self, w: Tensor) -> Tensor | None:
        """Return mean|w| at 1 bit, as ``forward`` summed it."""
        return F.dorefa_weight(w, bits=1).abs().max() if self.bits == 1 else None

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return the levels, or plus and minus ``magnitude`` at 1 bit."""
        y = 2 * (codes.float() / (2**self.bits - 1)) - 1
        return self.finish(y) if magnitude is None else y * magnitude


class EWGSWeight(WeightQuantizer):
    """[EWGS] on weights: learned range from +-3 standard deviations, values in [-1, 1]."""

    method = "ewgs"

    def __init__(self, weight: Tensor, bits: int, delta: float) -> None:
        super().__init__(bits)
        self.delta = delta
        values = weight.detach().float()
        spread = values.square().mean().sqrt()  # where all are equal, which have no deviation
        if weight.numel() > 1:
            spread = torch.where(values.amin() == values.amax(), spread, values.std())
        spread = 3 * spread.reshape(1)
        self.lower = nn.Parameter(-spread)
        self.upper = nn.Parameter(spread.clone())

    def step_size(self) -> float:
        """Return the distance of two levels in units of the input."""
        size: float = (self.upper - self.lower).item() / (2**self.bits - 1)
        return size

    def apply_op(self, w: Tensor) -> Tensor:
        """Quantize to [0, 1]."""
        return F.ewgs(w, self.lower, self.upper, bits=self.bits, delta=self.delta)

    @staticmethod
    def quantize_many(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Sequence[Tensor]:
        """Quantize the weights of several layers."""
        lower, upper = [q.lower for q in quantizers], [q.upper for q in quantizers]
        bits = [q.bits for q in quantizers]
        return F.ewgs_many(weights, lower, upper, bits=bits, delta=quantizers[0].delta)

    def finish(self, y: Tensor) -> Tensor:
        """Map to [-1, 1]."""
        return torch.rsub(y, -1, alpha=-2)  # 2y - 1 in one pass

    def common_settings(self) -> object:
        """Return delta."""
        return self.delta

    def op_parameters(self) -> tuple[Tensor, ...]:
        """Return the ends of the range."""
        return self.lower, self.upper

    def codes(self, w: Tensor) -> Tensor:
        """Return the levels counted from the lower end."""
        return torch.round(self.apply_op(w) * (2**self.bits - 1)).to(torch.uint8)

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return the levels in [-1, 1]."""
        return self.finish(codes.float() / (2**self.bits - 1))
