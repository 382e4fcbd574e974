"""The order of backends by op, device, dtype and size, each with the measurement it rests on.

The first preference that covers a call decides; a backend that cannot run is passed over.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

NOT_MEASURED = "not measured"


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
        if self.op not in (None, op) or self.dtype not in (None, x.dtype):
            return False
        return self.below is None or x.numel() < self.below


# No measured size or dtype makes PyTorch's own ops the better choice: one preference per device.
PREFERENCES: dict[str, tuple[Preference, ...]] = {
    "cpu": (Preference(("native", "reference"), "benchmarks/results/quantizers-cpu.md"),),
    "cuda": (Preference(("native", "triton", "reference"), NOT_MEASURED),),
}

# Weights of fewer elements are quantized together: one launch saves a call each. Larger ones gain
# nothing, and one autograd node for all would delay their gradients in DDP until the end.
TOGETHER_BELOW: dict[str, tuple[int, str]] = {
    "cpu": (2**19, "benchmarks/results/many-cpu.md"),
    "cuda": (2**18, NOT_MEASURED),
}


def order_for(op: str, x: Tensor) -> tuple[str, ...]:
    """Return the backends for ``op`` on ``x``, best first."""
    for preference in PREFERENCES.get(x.device.type, ()):
        if preference.covers(op, x):
            return preference.order
    return ("reference",)


def together_below(weight: Tensor) -> int:
    """Return how many elements a weight must stay below to be quantized together with others."""
    return TOGETHER_BELOW.get(weight.device.type, (0, NOT_MEASURED))[0]
