"""The order of backends by op, device, dtype and size, each with the measurement it rests on.

The first preference that covers a call decides; a backend that cannot run is passed over.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

NOT_MEASURED = "not measured"
T = TypeVar("T")

# The backends chosen so far, by op, device, dtype and forced backend, where no size decides.
CHOICES: dict[Any, str] = {}


class Rules(dict[str, T]):
    """What choices follow from: a change makes them anew."""

    def __setitem__(self, key: str, value: T) -> None:
        CHOICES.clear()
        super().__setitem__(key, value)

    def __delitem__(self, key: str) -> None:
        CHOICES.clear()
        super().__delitem__(key)


@dataclass(frozen=True)
class Preference:
    """An order of backends for some calls; None covers everything."""

    order: tuple[str, ...]
    source: str  # the result file, or NOT_MEASURED
    op: str | None = None
    dtype: torch.dtype | None = None
    below: int | None = None  # elements

    def covers(self, op: str, x: Tensor) -> bool:
        """Return whether the preference is for this op and tensor."""
        return self.concerns(op, x) and (self.below is None or x.numel() < self.below)

    def concerns(self, op: str, x: Tensor) -> bool:
        """Return whether the preference is for this op and some tensors of this dtype."""
        return self.op in (None, op) and self.dtype in (None, x.dtype)


# No measured size or dtype makes PyTorch's own ops the better choice: one preference per device.
PREFERENCES: Rules[tuple[Preference, ...]] = Rules(
    cpu=(Preference(("native", "reference"), "benchmarks/results/quantizers-cpu.md"),),
    cuda=(Preference(("native", "triton", "reference"), NOT_MEASURED),),
)

# Weights of fewer elements are quantized together: one launch saves a call each. Larger ones gain
# nothing, and one autograd node for all would delay their gradients in DDP until the end.
TOGETHER_BELOW: dict[str, tuple[int, str]] = {
    "cpu": (2**19, "benchmarks/results/many-cpu.md"),
    "cuda": (2**18, NOT_MEASURED),
}


# Ops that a graph of torch.compile gets as their formula, which Inductor fuses with its neighbours.
# PACT's and DoReFa's stay: what Inductor makes of their formulas on a CPU takes longer.
INLINED: dict[str, dict[str, str]] = {
    "cpu": dict.fromkeys(("lsq", "ewgs"), "benchmarks/results/compiled-cpu.md"),
    "cuda": dict.fromkeys(("lsq", "ewgs"), NOT_MEASURED),  # 50 bytes an element instead of 64
}


# The memory format that training is faster in.
LAYOUTS: dict[str, tuple[torch.memory_format, str]] = {
    "cpu": (torch.channels_last, "benchmarks/results/training-cpu.md"),
    "cuda": (torch.channels_last, NOT_MEASURED),
}


def order_for(op: str, x: Tensor) -> tuple[str, ...]:
    """Return the backends for ``op`` on ``x``, best first."""
    for preference in PREFERENCES.get(x.device.type, ()):
        if preference.covers(op, x):
            return preference.order
    return ("reference",)


def size_decides(op: str, x: Tensor) -> bool:
    """Return whether another number of elements might have another order."""
    rows = PREFERENCES.get(x.device.type, ())
    return any(row.below is not None and row.concerns(op, x) for row in rows)


def is_inlined(op: str, x: Tensor) -> bool:
    """Return whether a compiled graph gets the formula of ``op`` for tensors like ``x``."""
    return op in INLINED.get(x.device.type, {})


def together_below(weight: Tensor) -> int:
    """Return how many elements a weight must stay below to be quantized together with others."""
    return TOGETHER_BELOW.get(weight.device.type, (0, NOT_MEASURED))[0]
