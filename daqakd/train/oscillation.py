"""Weights that oscillate between two codes [Nagel et al. 2022], counted without reading back."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..quant.grids import weight_codes
from ..quant.layers import QuantLayer


@torch.no_grad()
def codes_of(layers: Sequence[QuantLayer]) -> Tensor:
    """Return the codes of all weights, ``uint8 [N]``, one layer after another."""
    return torch.cat([weight_codes(layer).flatten() for layer in layers])


class Oscillations:
    """The codes of some weights, and in which direction each has changed last.

    A weight oscillates where its code changes against the direction of the change before.

    Args:
        codes: ``uint8 [N]``, at the start.
        window: how many observations a change is remembered, up to 127; None for ever.
    """

    def __init__(self, codes: Tensor, window: int | None = None) -> None:
        self.codes, self.window = codes, window
        # above 0 after a change upwards, below after one downwards; nearer to 0 as it fades
        self.directions = torch.zeros_like(codes, dtype=torch.int8)

    def observe(self, codes: Tensor) -> Tensor:
        """Take the codes of now; return which of them changed back, ``bool [N]``."""
        up, down = codes > self.codes, codes < self.codes
        back = (up & (self.directions < 0)) | (down & (self.directions > 0))
        if self.window is not None:
            self.directions -= self.directions.sign()
        remembered = self.window or 1
        self.directions.masked_fill_(up, remembered).masked_fill_(down, -remembered)
        self.codes = codes
        return back

    def tensors(self) -> dict[str, Tensor]:
        """Return the state."""
        return {"codes": self.codes, "directions": self.directions}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take a state back."""
        self.codes, self.directions = (
            tensors[name].to(self.codes.device) for name in ("codes", "directions")
        )
