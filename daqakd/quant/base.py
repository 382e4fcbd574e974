"""Bases of the quantizer modules: bits, granularity, calibration phases, statistics."""

import itertools
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .._errors import InputError
from .._ops import METHOD_CODES, SMALLEST
from ..functional.bn_act_quant import QuantizerSettings
from .affine import ActivationAffine
from .flags import Flagged, read_flags
from .spec import Flavour

PERCENTILE = 0.999


def _percentile(x: Tensor) -> Tensor:
    """Return the 99.9th percentile of |x|."""
    rank = max(int(PERCENTILE * x.numel()), 1)
    return x.abs().flatten().kthvalue(rank).values


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {
    "mean_abs": lambda x: x.abs().mean(),
    "std": lambda x: x.std() if x.numel() > 1 else x.new_zeros(()),
    "percentile": _percentile,
    "largest_tanh": lambda x: x.tanh().abs().max(),
}


TURNS = itertools.count(1)  # in which order the quantizers saw data


class Statistics:
    """Means over the calibration batches and the ranks, which starting values are computed from."""

    def __init__(self, measures: tuple[str, ...]) -> None:
        self.turn = 0
        self.finite: Tensor | None = None
        self.measures = measures
        self.batches = 0
        self.sums: dict[str, Tensor] = {}
        self.minimum: Tensor | None = None
        self.maximum: Tensor | None = None

    def update(self, x: Tensor) -> None:
        """Add one batch."""
        x = x.detach().float()
        low, high = x.aminmax()
        finite = low.isfinite() & high.isfinite()
        self.finite = finite if self.finite is None else self.finite & finite
        self.turn = self.turn or next(TURNS)
        self.minimum = low if self.minimum is None else torch.minimum(self.minimum, low)
        self.maximum = high if self.maximum is None else torch.maximum(self.maximum, high)
        self.batches += 1
        for name in self.measures:
            value = MEASURES[name](x)
            self.sums[name] = self.sums[name] + value if name in self.sums else value

    def mean(self, name: str) -> Tensor:
        """Return the mean of a measure, 0-dim float32, the same on every rank.

        Data without a scale (all zero, one value, or below the smallest step) counts as 1.
        """
        value = self.sums[name] / self.batches
        if dist.is_initialized():
            dist.all_reduce(value)
            value /= dist.get_world_size()
        return torch.where(value > SMALLEST, value, 1.0)

    def smallest(self) -> Tensor:
        """Return the smallest value seen, the same on every rank."""
        assert self.minimum is not None
        if dist.is_initialized():
            dist.all_reduce(self.minimum, op=dist.ReduceOp.MIN)
        return self.minimum

    def largest(self) -> Tensor:
        """Return the largest value seen, the same on every rank."""
        assert self.maximum is not None
        if dist.is_initialized():
            dist.all_reduce(self.maximum, op=dist.ReduceOp.MAX)
        return self.maximum


def accept_zero_dim(module: nn.Module, state_dict: dict[str, Any], prefix: str) -> None:
    """Give 0-dim values the shape ``[1]`` of the parameters: files of before have such."""
    for name, parameter in module._parameters.items():
        value = state_dict.get(prefix + name)
        if getattr(parameter, "shape", None) == (1,) and getattr(value, "shape", None) == ():
            state_dict[prefix + name] = value.reshape(1)  # type: ignore[union-attr]


class ScalesGradients(nn.Module):
    """EWGS's ``delta``: a number, or a buffer that starts at 0 and is updated on the way.

    A ``state_dict`` without the buffer leaves it as it is.
    """

    delta: float | Tensor

    def keep_delta(self, delta: float | Tensor | str) -> None:
        """Keep a number or tensor as it is, and ``"hessian"`` as a buffer, 0-dim float32."""
        if isinstance(delta, str):
            self.register_buffer("delta", torch.zeros(()))
        else:
            self.delta = delta

    @property
    def updates_delta(self) -> bool:
        """Whether delta is a buffer."""
        return "delta" in self._buffers

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any) -> None:
        buffer = self._buffers.get("delta")
        if buffer is not None:
            state_dict.setdefault(f"{prefix}delta", buffer)
        super()._load_from_state_dict(state_dict, prefix, *args)


class Quantizer(nn.Module):
    """Base of all quantizers: bits, granularity, and a name for messages."""

    method = ""
    flavour: Flavour = "paper"
    """Whose formulas it has: the papers', or MQBench's."""
    has_fused_op = True
    """Whether ops on chains, on many weights and on saved codes know its formula."""
    uniform = True
    """Whether its width is the model's own, not one of first and last layers or of overrides."""
    __call__: Callable[..., Tensor]

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.name = ""

    def set_bits(self, bits: int) -> None:
        """Take another width; the parameters are those of the one before until they start anew."""
        self.bits = bits

    @property
    def granularity(self) -> str:
        """``tensor`` or ``channel``."""
        return "tensor"

    def step_size(self) -> float | None:
        """Return the (mean) distance of neighbouring levels, None before calibration."""
        return None

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {})  # lost where others copy the dictionary
        metadata.setdefault(prefix[:-1], {})["bits"] = self.bits

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        accept_zero_dim(self, state_dict, prefix)
        bits = local_metadata.get("bits", self.bits)
        if bits != self.bits:  # the last argument collects what load_state_dict raises at its end
            args[-1].append(
                f"{prefix[:-1]} has {bits} bits in the state_dict and {self.bits} here; quantize"
                " with the same widths, or keep students by daqakd.save and daqakd.load"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)

    def extra_repr(self) -> str:
        """Show bits and granularity."""
        return f"bits={self.bits}, granularity={self.granularity}"


class ActivationQuantizer(Flagged, Quantizer):
    """Base of activation quantizers: signedness and parameters come from ``calibrate``.

    ``phase`` is None in use; ``calibrate`` sets it to ``"observe"`` (pass through, note the
    smallest value) and then ``"start"`` (set the parameters from the statistics, and quantize);
    with ``"pass"`` it only passes through, with ``"settled"`` it only quantizes.
    """

    measures: tuple[str, ...] = ()
    always_signed = False  # whatever the calibration data is
    has_offset = False  # whether its grid begins at a learned level, so that it needs no sign
    has_parameters = True  # else all quantizers of the same bits and signedness are one

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.phase: str | None = None
        self.statistics = Statistics(())

    def enter(self, phase: str | None) -> None:
        """Begin a calibration phase with fresh statistics, or end calibration with None."""
        self.phase = phase
        self.statistics = Statistics(self.measures if phase == "start" else ())

    def initialise(self, statistics: Statistics) -> None:
        """Set the parameters from what was observed."""

    def quantize(self, x: Tensor) -> Tensor:
        """Fake-quantize with the current parameters."""
        raise NotImplementedError

    def affine(self) -> ActivationAffine | None:
        """Return codes and the line to values, None where they follow from the batch."""
        return None

    def fused_settings(self, x: Tensor) -> QuantizerSettings:
        """Return what ``bn_act_quant`` takes for it, with activations of the shape of ``x``."""
        return QuantizerSettings(METHOD_CODES[self.method], widths=(self.bits, self.known_signed))

    def cache_key(self) -> object:
        """Return a key that is equal for quantizers that give the same values."""
        return id(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the fake-quantized activations; during ``calibrate``, observe them."""
        if self.phase is not None:
            return self._calibrate(x)
        if self.flags_changed():
            read_flags([self])
        if not self.known_calibrated:
            raise InputError(
                f"{self.name}: forward pass before calibration, so its step is undefined;"
                " call daqakd.calibrate(student, batches) or load a calibrated state_dict first"
            )
        return self.quantize(x)

    def _calibrate(self, x: Tensor) -> Tensor:
        if self.phase == "pass" or not x.numel():
            return x
        if self.phase == "settled":
            return self.quantize(x)
        self.statistics.update(x)
        if self.phase == "observe":
            return x
        self.initialise(self.statistics)
        return self.quantize(x)
