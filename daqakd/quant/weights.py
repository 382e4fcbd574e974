"""Weight quantizers: their parameters start from the weights they are given.

Each also gives its values as integer codes, and the same values from the codes, bit for bit.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .. import functional as F
from .._ops import SMALLEST, STE_CODES
from ..functional import _checks
from ..functional._apply import passes, split_scalar
from ..functional._many import Together
from ..functional.dorefa_weight_many import DoReFaWeightManyFunction
from ..functional.ewgs_many import EWGSManyFunction
from ..functional.lsq import LSQFunction
from ..functional.lsq_many import LSQManyFunction
from .affine import WeightAffine
from .base import Quantizer, ScalesGradients
from .spec import Delta


class WeightQuantizer(Quantizer):
    """Base of weight quantizers: fake quantization, and values to codes of ``bits`` bits and back.

    ``forward`` is :meth:`apply_op`, then :meth:`finish`. ``together`` is ``apply_op`` on the
    weights of several layers at once.
    """

    op_parameters: tuple[str, ...] = ()  # names of those that the op reads

    def apply_op(self, w: Tensor) -> Tensor:
        """Return the result of the method's op on ``w``."""
        raise NotImplementedError

    @staticmethod
    def together(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Together:
        """Return ``apply_op`` of every quantizer on its weights, as one call."""
        raise NotImplementedError

    def finish(self, y: Tensor) -> Tensor:
        """Return the weights to compute with, from the op's result."""
        return y

    def forward(self, w: Tensor) -> Tensor:
        """Return the fake-quantized weights."""
        return self.finish(self.apply_op(w))

    def common_settings(self) -> object:
        """Return what the quantizers of one call must have in common."""
        return None

    def settings(self) -> object:
        """Return what else than weights and parameters a call is made of."""
        return self.bits

    @property
    def joins(self) -> bool:
        """Whether ``together`` computes what this quantizer does."""
        return self.has_fused_op

    @property
    def num_levels(self) -> int:
        """How many values weights can take."""
        return int(2**self.bits)

    @property
    def has_all_levels(self) -> bool:
        """Whether every code of ``bits`` bits is one that weights can have."""
        return self.num_levels == int(2**self.bits)

    def codes(self, w: Tensor) -> Tensor:
        """Return the codes of the float32 weights, ``uint8`` in [0, 2^bits), shape of ``w``."""
        raise NotImplementedError

    def magnitude(self, w: Tensor) -> Tensor | None:
        """Return the 0-dim factor that neither the codes nor this module hold, if there is one."""
        return None

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return the values ``forward`` gave, float32, from their codes and ``magnitude``."""
        raise NotImplementedError

    def affine(self, w: Tensor) -> WeightAffine:
        """Return the line from codes to values; equal to ``from_codes`` to rounding."""
        raise NotImplementedError

    def starting_values(self, weight: Tensor) -> dict[str, Tensor]:
        """Return what parameters and buffers start from, by name."""
        raise NotImplementedError

    @torch.no_grad()
    def restart(self, weight: Tensor) -> None:
        """Start anew from the weights as they are now."""
        for name, value in self.starting_values(weight).items():
            getattr(self, name).copy_(value)


class SteppedWeight(WeightQuantizer):
    """Base of quantizers with a learned step, one for the weight or one per index of an axis.

    ``highest`` is the level, in steps, of the highest code, and ``lowest`` that of code 0; the
    step's gradient is scaled by ``1 / sqrt(weights per step * highest)`` [LSQ section 2.2].

    Args:
        weight: the step starts from.
        bits: of the codes.
        per_channel: one step per index of ``channel_axis``.
        channel_axis: a dimension of the weight.
    """

    op_parameters = ("step",)

    def __init__(self, weight: Tensor, bits: int, per_channel: bool, channel_axis: int = 0) -> None:
        super().__init__(bits)
        self.axis = channel_axis if per_channel else None
        self.weights_per_step = weight.numel() / (
            1 if self.axis is None else weight.shape[self.axis]
        )
        self.set_bits(bits)
        self.step = nn.Parameter(self.starting_values(weight)["step"])

    @property
    def lowest(self) -> float:
        """The level of code 0, in steps."""
        raise NotImplementedError

    @property
    def highest(self) -> float:
        """The level of the highest code, in steps."""
        return self.lowest + self.num_levels - 1

    def set_bits(self, bits: int) -> None:
        """Take another width."""
        super().set_bits(bits)
        self.grad_scale = 1 / math.sqrt(self.weights_per_step * self.highest)

    @property
    def granularity(self) -> str:
        """``channel`` when every index of an axis has its own step."""
        return "tensor" if self.axis is None else "channel"

    def step_size(self) -> float:
        """Return the mean step."""
        return self.step.detach().mean().item()

    def settings(self) -> tuple[Any, ...]:
        """Return bits and gradient scale."""
        return self.bits, self.grad_scale

    def rows(self, weight: Tensor) -> Tensor:
        """Return the weights of each step, ``[steps, weights]``."""
        if self.axis is None:
            return weight.reshape(1, -1)
        return weight.movedim(self.axis, 0).flatten(1)

    def steps(self, dim: int) -> Tensor:
        """Return the steps as they are used, shaped to broadcast against the weights."""
        step = self.step.detach().clamp(min=SMALLEST)
        if self.axis is None:
            return step
        return step.reshape([-1 if i == self.axis else 1 for i in range(dim)])

    def codes(self, w: Tensor) -> Tensor:
        """Return the codes above the lowest one."""
        codes: Tensor = torch.round(self(w) / self.steps(w.dim()) - self.lowest)
        return codes.to(torch.uint8)

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return level times step."""
        w: Tensor = (codes.float() + self.lowest) * self.steps(codes.dim())
        return w

    def affine(self, w: Tensor) -> WeightAffine:
        """Return the steps, and where 0 lies among the codes."""
        return WeightAffine(self.steps(w.dim()).flatten(), -self.lowest)


def usual_magnitude(weight: Tensor) -> float:
    """Return the mean magnitude of torch's initialisation for the fan-in of a weight."""
    return 0.5 / math.sqrt(max(weight[0].numel(), 1))


class LSQWeight(SteppedWeight):
    """[LSQ] on weights: signed, step from ``2 mean|w| / sqrt(qmax)``, gradient scaled.

    Where all weights are zero, the mean of torch's initialisation for that fan-in takes its place.
    """

    method = "lsq"

    @property
    def lowest(self) -> int:
        """The lowest code of two's complement."""
        return int(-(2 ** (self.bits - 1)))

    @property
    def qmax(self) -> int:
        """The highest one."""
        return -self.lowest - 1

    def starting_values(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the step, from the mean magnitude."""
        mean = weight.detach().abs()
        mean = mean.mean().reshape(1) if self.axis is None else self.rows(mean).mean(1)
        mean = torch.where(mean == 0, usual_magnitude(weight), mean)
        return {"step": 2 * mean.float() / math.sqrt(self.qmax)}

    def apply_op(self, w: Tensor) -> Tensor:
        """Fake-quantize."""
        _checks.floating("w", w)
        code_range = _checks.integer_range(self.bits, True)
        arguments = (
            *passes("lsq", w),
            *code_range,
            self.axis,
            STE_CODES["closed"],
            self.grad_scale,
        )
        y: Tensor = LSQFunction.apply(w, self.step, arguments)
        return y

    @staticmethod
    def together(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Together:
        """Fake-quantize the weights of several layers."""
        ranges = [_checks.integer_range(q.bits, True) for q in quantizers]
        low, high = [low for low, _ in ranges], [high for _, high in ranges]
        arguments = low, high, STE_CODES["closed"], [q.grad_scale for q in quantizers]
        steps = [q.step for q in quantizers]
        return Together("lsq_many", LSQManyFunction, arguments, *weights, *steps, first=weights[0])

    @property
    def joins(self) -> bool:
        """Whether ``together`` computes what this does: it knows steps of the first axis alone."""
        return super().joins and self.axis in (None, 0)


class DoReFaWeight(WeightQuantizer):
    """[DoReFa] on weights; ``rescale`` gives back the magnitude that the method throws away."""

    method = "dorefa"

    def __init__(self, weight: Tensor, bits: int, rescale: bool) -> None:
        super().__init__(bits)
        rescale = rescale and bits > 1
        self.register_buffer("rescale", _largest(weight) if rescale else None)
        self.rescale: Tensor | None

    def starting_values(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the magnitude, where it is kept."""
        return {} if self.rescale is None else {"rescale": _largest(weight)}

    def step_size(self) -> float:
        """Return the distance of two levels."""
        factor = 1.0 if self.rescale is None else self.rescale.item()
        size: float = 2 * factor / (2**self.bits - 1)
        return size

    def apply_op(self, w: Tensor) -> Tensor:
        """Quantize to [-1, 1]."""
        return F.dorefa_weight(w, bits=self.bits)

    @staticmethod
    def together(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Together:
        """Quantize the weights of several layers, the maxima detached."""
        arguments = [q.bits for q in quantizers], True
        function = DoReFaWeightManyFunction
        return Together("dorefa_weight_many", function, arguments, *weights, first=weights[0])

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

    def affine(self, w: Tensor) -> WeightAffine:
        """Return the distance of two levels; 0 lies in the middle of two."""
        levels, magnitude = 2**self.bits - 1, self.magnitude(w)
        factor = self.rescale if magnitude is None else magnitude
        one = w.new_ones(1, dtype=torch.float32) if factor is None else factor.float().reshape(1)
        return WeightAffine(one * 2 / levels, levels / 2)


def _largest(weight: Tensor) -> Tensor:
    """Return the largest magnitude, 0-dim float32."""
    largest = weight.detach().abs().max().float() if weight.numel() else torch.ones(())
    return largest.reshape(())


class EWGSWeight(ScalesGradients, WeightQuantizer):
    """[EWGS] on weights: learned range from +-3 standard deviations, values in [-1, 1]."""

    method = "ewgs"
    op_parameters = ("lower", "upper")

    def __init__(self, weight: Tensor, bits: int, delta: Delta) -> None:
        super().__init__(bits)
        self.keep_delta(delta)
        start = self.starting_values(weight)
        self.lower, self.upper = nn.Parameter(start["lower"]), nn.Parameter(start["upper"])

    def starting_values(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the range of +-3 standard deviations."""
        values = weight.detach().float()
        spread = values.square().mean().sqrt()  # where all are equal, which have no deviation
        if weight.numel() > 1:
            spread = torch.where(values.amin() == values.amax(), spread, values.std())
        spread = 3 * spread.reshape(1)
        return {"lower": -spread, "upper": spread}

    def step_size(self) -> float:
        """Return the distance of two levels in units of the input."""
        size: float = (self.upper - self.lower).item() / (2**self.bits - 1)
        return size

    def apply_op(self, w: Tensor) -> Tensor:
        """Quantize to [0, 1]."""
        return F.ewgs(w, self.lower, self.upper, bits=self.bits, delta=self.delta)

    @staticmethod
    def together(quantizers: Sequence[Any], weights: Sequence[Tensor]) -> Together:
        """Quantize the weights of several layers."""
        delta, delta_tensor = split_scalar(quantizers[0].delta, "delta")
        arguments = [q.bits for q in quantizers], delta
        tensors = delta_tensor, *weights, *(q.lower for q in quantizers)
        uppers = [q.upper for q in quantizers]
        function = EWGSManyFunction
        return Together("ewgs_many", function, arguments, *tensors, *uppers, first=weights[0])

    def settings(self) -> object:
        """Return bits and delta."""
        return self.bits, self.delta

    def finish(self, y: Tensor) -> Tensor:
        """Map to [-1, 1]."""
        return torch.rsub(y, -1, alpha=-2)  # 2y - 1 in one pass

    def common_settings(self) -> object:
        """Return delta."""
        return self.delta

    def codes(self, w: Tensor) -> Tensor:
        """Return the levels counted from the lower end."""
        return torch.round(self.apply_op(w) * (2**self.bits - 1)).to(torch.uint8)

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return the levels in [-1, 1]."""
        return self.finish(codes.float() / (2**self.bits - 1))

    def affine(self, w: Tensor) -> WeightAffine:
        """Return the distance of two levels; 0 lies in the middle of two."""
        levels = 2**self.bits - 1
        return WeightAffine(w.new_full((1,), 2 / levels, dtype=torch.float32), levels / 2)
