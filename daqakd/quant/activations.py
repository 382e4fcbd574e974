"""Activation quantizers: their parameters start from calibration data."""

import math

import torch
from torch import Tensor, nn

from .._ops import METHOD_CODES, SMALLEST, STE_CODES
from ..functional import _checks
from ..functional._apply import passes, split_scalar
from ..functional.bn_act_quant import QuantizerSettings
from ..functional.dorefa import DoReFaActivationFunction
from ..functional.ewgs import EWGSFunction
from ..functional.lsq import LSQFunction
from ..functional.pact import PACTFunction
from .affine import ActivationAffine
from .base import ActivationQuantizer, ScalesGradients, Statistics
from .spec import Delta


def _symmetric(bits: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and the highest code of PACT and DoReFa."""
    return (1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


class LSQActivation(ActivationQuantizer):
    """[LSQ] on activations: step from ``2 mean|x| / sqrt(qmax)``."""

    method = "lsq"
    measures = ("mean_abs",)

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.step = nn.Parameter(torch.ones(1))

    @property
    def qmax(self) -> int:
        """The largest code."""
        qmax: int = 2 ** (self.bits - 1) - 1 if self.known_signed else 2**self.bits - 1
        return qmax

    def step_size(self) -> float | None:
        """Return the step."""
        return self.step.item() if self.is_calibrated else None

    def initialise(self, statistics: Statistics) -> None:
        """Start the step from the mean magnitude."""
        self.step.data.copy_(2 * statistics.mean("mean_abs") / math.sqrt(self.qmax))

    def quantize(self, x: Tensor) -> Tensor:
        """Apply [LSQ]; the gradient scale counts the features of one sample."""
        _checks.floating("x", x)
        qmin, qmax = _checks.integer_range(self.bits, self.known_signed)
        scale = 1 / math.sqrt(max(math.prod(x.shape[1:]), 1) * qmax)
        arguments = (*passes("lsq", x), qmin, qmax, None, STE_CODES["closed"], scale)
        y: Tensor = LSQFunction.apply(x, self.step, arguments)
        return y

    def affine(self) -> ActivationAffine:
        """Return the step, on both sides."""
        step = self.step.detach().clamp(min=SMALLEST)
        return ActivationAffine(step, step, *_checks.integer_range(self.bits, self.is_signed))

    def fused_settings(self, x: Tensor) -> QuantizerSettings:
        """Return what ``bn_act_quant`` takes for it."""
        scale = 1 / math.sqrt(x.numel() // len(x) * self.qmax)
        gradient = (STE_CODES["closed"], scale, 0.0, None)
        return QuantizerSettings(
            METHOD_CODES["lsq"], self.step, None, (self.bits, self.known_signed), gradient
        )


class PACTActivation(ActivationQuantizer):
    """[PACT]: alpha starts at the 99.9th percentile of the calibration data, or a given value."""

    method = "pact"
    measures: tuple[str, ...] = ("percentile",)

    def __init__(self, bits: int, start: float | None) -> None:
        super().__init__(bits)
        self.start = start
        self.alpha = nn.Parameter(torch.ones(1))

    def step_size(self) -> float | None:
        """Return the distance of two levels."""
        levels = 2 ** (self.bits - 1) - 1 if self.known_signed else 2**self.bits - 1
        return self.alpha.item() / levels if self.is_calibrated else None

    def initialise(self, statistics: Statistics) -> None:
        """Start alpha."""
        level = statistics.mean("percentile") if self.start is None else torch.tensor(self.start)
        self.alpha.data.copy_(level)

    def quantize(self, x: Tensor) -> Tensor:
        """Apply [PACT]."""
        _checks.floating("x", x)
        arguments = (*passes("pact", x), self.bits, self.known_signed, None)
        y: Tensor = PACTFunction.apply(x, self.alpha, arguments)
        return y

    def affine(self) -> ActivationAffine:
        """Return alpha in steps, symmetric where signed."""
        low, high = _symmetric(self.bits, self.is_signed)
        step = self.alpha.detach().clamp(min=SMALLEST) / high
        return ActivationAffine(step, step, low, high)

    def fused_settings(self, x: Tensor) -> QuantizerSettings:
        """Return what ``bn_act_quant`` takes for it."""
        widths = self.bits, self.known_signed
        return QuantizerSettings(METHOD_CODES["pact"], self.alpha, None, widths)


class DoReFaActivation(ActivationQuantizer):
    """[DoReFa] on activations: a fixed grid on [0, 1] or [-1, 1]."""

    method = "dorefa"
    has_parameters = False

    def step_size(self) -> float | None:
        """Return the distance of two levels."""
        levels = 2 ** (self.bits - 1) - 1 if self.known_signed else 2**self.bits - 1
        return 1 / levels if self.is_calibrated else None

    def cache_key(self) -> object:
        """Return the grid, the same for all quantizers of these bits and this signedness."""
        return self.method, self.bits, self.is_signed

    def quantize(self, x: Tensor) -> Tensor:
        """Apply [DoReFa]."""
        _checks.floating("x", x)
        arguments = (*passes("dorefa_activation", x), self.bits, self.known_signed)
        y: Tensor = DoReFaActivationFunction.apply(x, arguments)
        return y

    def affine(self) -> ActivationAffine:
        """Return 1 in steps, symmetric where signed."""
        low, high = _symmetric(self.bits, self.is_signed)
        step = torch.full_like(self.calibrated, 1 / high).reshape(1)
        return ActivationAffine(step, step, low, high)


class EWGSActivation(ScalesGradients, ActivationQuantizer):
    """[EWGS] on activations: learned range, values in [0, 1]."""

    method = "ewgs"
    has_offset = True
    measures = ("std",)
    HALF_NORMAL = 3 / math.sqrt(1 - 2 / math.pi)  # 3 sigma of the half-normal's parent

    def __init__(self, bits: int, delta: Delta) -> None:
        super().__init__(bits)
        self.keep_delta(delta)
        self.lower = nn.Parameter(torch.zeros(1))
        self.upper = nn.Parameter(torch.ones(1))

    def step_size(self) -> float | None:
        """Return the distance of two levels in units of the input."""
        width = (self.upper - self.lower).item() if self.is_calibrated else None
        return None if width is None else width / (2**self.bits - 1)

    def initialise(self, statistics: Statistics) -> None:
        """Start the range: the smallest value, and 3 sigma if the data is half-normal."""
        self.lower.data.copy_(statistics.smallest())
        self.upper.data.copy_(statistics.mean("std") * self.HALF_NORMAL)

    def quantize(self, x: Tensor) -> Tensor:
        """Apply [EWGS]."""
        _checks.floating("x", x)
        delta, delta_tensor = split_scalar(self.delta, "delta")
        arguments = (*passes("ewgs", x), self.bits, delta)
        y: Tensor = EWGSFunction.apply(x, self.lower, self.upper, delta_tensor, arguments)
        return y

    def affine(self) -> ActivationAffine:
        """Return the range in steps from its lower end; the output's steps are those of [0, 1]."""
        lower, levels = self.lower.detach(), 2**self.bits - 1
        step = (self.upper.detach() - lower).clamp(min=SMALLEST) / levels
        return ActivationAffine(step, torch.full_like(step, 1 / levels), 0, levels, lower)

    def fused_settings(self, x: Tensor) -> QuantizerSettings:
        """Return what ``bn_act_quant`` takes for it."""
        gradient = (STE_CODES["closed"], 1.0, *split_scalar(self.delta, "delta"))
        return QuantizerSettings(
            METHOD_CODES["ewgs"], self.lower, self.upper, (self.bits, False), gradient
        )
