"""SEQ on weights: balanced levels by a learned step, started where the error is least."""

from typing import Any

import torch
from torch import Tensor

from ..backends.reference.seq import seq_forward
from ..functional import _checks
from ..functional._apply import passes
from ..functional.seq import SEQFunction
from .weights import SteppedWeight, usual_magnitude

SHARES = tuple(i / 32 for i in range(1, 33))  # of the largest weight: where the top level starts


class SEQWeight(SteppedWeight):
    """[ParetoQ]'s SEQ on weights: levels balanced around 0, for 2 bits and 3 levels above all.

    The step starts where the squared error is least, among those that put the highest level at a
    share of the largest weight. Where all weights are zero, it is that of torch's initialisation
    for that fan-in.

    Args:
        weight: the step starts from.
        bits: 1 to 8.
        per_channel: one step per index of ``channel_axis``.
        channel_axis: a dimension of the weight.
        levels: how many at this width, 2 to ``2^bits``; None for ``2^bits``, as other widths have.
    """

    method = "seq"
    has_fused_op = False

    def __init__(
        self,
        weight: Tensor,
        bits: int,
        per_channel: bool,
        channel_axis: int = 0,
        levels: int | None = None,
    ) -> None:
        self.levels_at = {} if levels is None else {bits: levels}  # by width, for set_bits
        super().__init__(weight, bits, per_channel, channel_axis)

    @property
    def num_levels(self) -> int:
        """How many values weights can take."""
        return self.levels_at.get(self.bits, int(2**self.bits))

    @property
    def lowest(self) -> float:
        """The lowest level, in steps."""
        return (1 - self.num_levels) / 2

    def starting_values(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the step of the least squared error."""
        rows = self.rows(weight.detach().float())
        largest = rows.abs().amax(1)
        candidates = torch.stack([share / self.highest * largest for share in SHARES])
        errors = [
            (seq_forward(rows, step, self.num_levels, 0) - rows).square().mean(1)
            for step in candidates
        ]
        best = torch.stack(errors).argmin(0, keepdim=True)
        usual = 4 * usual_magnitude(weight) / self.num_levels  # the ends at twice the mean
        return {"step": torch.where(largest == 0, usual, candidates.gather(0, best)[0])}

    def apply_op(self, w: Tensor) -> Tensor:
        """Fake-quantize."""
        _checks.floating("w", w)
        arguments = *passes("seq", w), self.num_levels, self.axis, self.grad_scale
        y: Tensor = SEQFunction.apply(w, self.step, arguments)
        return y

    def settings(self) -> tuple[Any, ...]:
        """Return bits, levels and gradient scale."""
        return *super().settings(), self.num_levels

    def extra_repr(self) -> str:
        """Show the number of levels too."""
        return f"{super().extra_repr()}, levels={self.num_levels}"

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        metadata = getattr(destination, "_metadata", {})
        metadata.setdefault(prefix[:-1], {})["levels"] = self.num_levels

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any
    ) -> None:
        same_bits = local_metadata.get("bits", self.bits) == self.bits
        levels = local_metadata.get("levels", self.num_levels)
        if same_bits and levels != self.num_levels:
            args[-1].append(
                f"{prefix[:-1]} has {levels} levels in the state_dict and {self.num_levels} here;"
                " quantize with the same weight_levels, or keep students by daqakd.save and"
                " daqakd.load"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)
