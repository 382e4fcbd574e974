"""What quantization does to a student, epoch by epoch: oscillation, clipping, steps, dead weights.

Within an epoch nothing is read back from the device; at its end, everything at once.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..quant.base import Quantizer
from ..quant.grids import is_at_floor, quantized_layers
from .clipping import clipped_shares
from .oscillation import Oscillations, codes_of
from .part import Part

EVERY = 8  # steps between two looks at the codes
WINDOW = 16  # looks, 128 steps, within which a code that changed back oscillates
NAMED = 5  # in one sentence
NO_GRADIENT = "its gradient was zero in all of epoch {}, so it does not train"
AT_FLOOR = (
    "at the floor of 2^-30 since epoch {}, so it quantizes to next to nothing; try a lower"
    " --quantizer-lr, or more bits"
)


class Diagnostics(Part):
    """Columns ``oscillating``, ``clipped``, ``smallest_step``, ``no_gradient``, and :attr:`detail`.

    Oscillating are the weights whose code changed back within 128 steps, at every eighth of which
    it is looked at. Clipped are the activations beyond the highest level (with signs or a range:
    the lowest, too) of ``images`` at the end of the epoch, in eval mode. ``no_gradient`` counts the
    parameters whose gradient was zero in every step.

    Args:
        model: the student.
        images: returns ``[B, 3, H, W]`` on its device, the same every time.
        say: takes a sentence about a parameter or quantizer, once for each.
    """

    name = "diagnostics"

    def __init__(
        self, model: nn.Module, images: Callable[[], Tensor], say: Callable[[str], None]
    ) -> None:
        self.model, self.images, self.say = model, images, say
        self.layers = dict(quantized_layers(model))
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        self.names, self.parameters = [n for n, _ in named], [p for _, p in named]
        self.quantizers = {n: m for n, m in model.named_modules() if isinstance(m, Quantizer)}
        self.none = self.parameters[0].new_zeros(())  # stands for a gradient that is not there
        self.largest = torch.zeros(len(named), device=self.none.device)
        self.told = torch.zeros(len(named) + len(self.quantizers), dtype=torch.bool)
        self.oscillations: Oscillations | None = None
        self.changed_back = torch.zeros(0, dtype=torch.bool, device=self.none.device)
        self.detail: dict[str, Any] = {}

    def before_epoch(self, epoch: int) -> None:
        """Begin with the codes of now, unless a checkpoint had some."""
        if self.oscillations is None and self.layers:
            self._begin(codes_of(list(self.layers.values())))

    def _begin(self, codes: Tensor) -> None:
        self.oscillations = Oscillations(codes, WINDOW)
        self.changed_back = torch.zeros_like(codes, dtype=torch.bool)

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Note each parameter's largest gradient."""
        gradients = [self.none if p.grad is None else p.grad for p in self.parameters]
        norms = torch._foreach_norm(gradients, float("inf"), dtype=torch.float32)
        torch.maximum(self.largest, torch.stack(norms), out=self.largest)

    def after_step(self, step: int) -> None:
        """Look at the codes."""
        if self.oscillations is not None and step % EVERY == 0:
            codes = codes_of(list(self.layers.values()))
            self.changed_back |= self.oscillations.observe(codes)

    @torch.no_grad()
    def end_epoch(self, epoch: int, accuracy: float | None) -> dict[str, float | None]:
        """Return the columns, and say what is dead or at its floor."""
        alive = self.largest.cpu() != 0
        dead = [n for n, lives in zip(self.names, alive.tolist(), strict=True) if not lives]
        at_floor = [name for name, q in self.quantizers.items() if is_at_floor(q)]
        self._tell(epoch, dead, at_floor)
        quantizers = self._quantizers()
        names = {"no_gradient": dead, "at_floor": at_floor}
        self.detail = {"quantizers": quantizers, "names": names}
        clipped = [q["clipped"] for q in quantizers.values() if "clipped" in q]
        steps = [q["step"] for q in quantizers.values() if q["step"] is not None]
        row = {
            "oscillating": self.changed_back.double().mean().item() if self.layers else None,
            "clipped": sum(clipped) / len(clipped) if clipped else None,
            "smallest_step": min(steps, default=None),
            "no_gradient": len(dead),
        }
        self.largest.zero_()
        self.changed_back.zero_()
        return row

    def _quantizers(self) -> dict[str, dict[str, Any]]:
        """Return what there is to say about each quantizer."""
        found = {
            name: {"step": q.step_size(), "parameters": _values(q)}
            for name, q in self.quantizers.items()
        }
        for name, share in self._oscillating().items():
            found[name]["oscillating"] = share
        for name, share in clipped_shares(self.model, self.images()).items():
            found[name]["clipped"] = share
        return found

    def _oscillating(self) -> dict[str, float]:
        """Return the share of each weight quantizer's codes that changed back in this epoch."""
        if not self.layers:
            return {}
        counts = [layer.weight.numel() for layer in self.layers.values()]
        shares = torch.stack([x.double().mean() for x in self.changed_back.split(counts)])
        names = [f"{name}.weight_quantizer" for name in self.layers]
        return dict(zip(names, shares.tolist(), strict=True))

    def _tell(self, epoch: int, dead: list[str], at_floor: list[str]) -> None:
        """Name what is new among the dead and those at their floor."""
        every = [*self.names, *self.quantizers]
        for found, what in ((dead, NO_GRADIENT), (at_floor, AT_FLOOR)):
            new = [name for name in found if not self.told[every.index(name)]]
            for name in new:
                self.told[every.index(name)] = True
            if new:
                more = f" and {len(new) - NAMED} more" if len(new) > NAMED else ""
                self.say(f"{', '.join(new[:NAMED])}{more}: {what.format(epoch + 1)}")

    def tensors(self) -> dict[str, Tensor]:
        """Return what the epoch has shown so far, and what was said before."""
        codes = {} if self.oscillations is None else self.oscillations.tensors()
        own = {"largest": self.largest, "changed_back": self.changed_back, "told": self.told}
        return codes | own

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take it back."""
        if "codes" in tensors:
            self._begin(tensors["codes"].to(self.largest.device))
            assert self.oscillations is not None
            self.oscillations.load(tensors)
        for name in ("largest", "changed_back", "told"):
            setattr(self, name, tensors[name].to(getattr(self, name).device))


def _values(quantizer: Quantizer) -> dict[str, float | list[float]]:
    """Return each parameter; of many channels, the smallest and the largest."""
    found = {}
    for name, parameter in quantizer.named_parameters():
        ends = [end.item() for end in parameter.detach().aminmax()]
        found[name] = ends if parameter.numel() > 1 else ends[0]
    return found
