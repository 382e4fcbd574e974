"""Grids of quantized layers in units of what they quantize: where weights snap, what is clipped."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .._ops import SMALLEST
from .activations import EWGSActivation, LSQActivation, PACTActivation
from .base import ActivationQuantizer, Quantizer
from .layers import QuantLayer
from .lsqplus import LSQPlusActivation
from .mqbench import MQBenchActivation
from .weights import EWGSWeight, SteppedWeight


class Grid(NamedTuple):
    """Equally spaced levels: the lowest, their distance, and how many steps there are to the top.

    Tensors broadcast against the weight.
    """

    lowest: Tensor
    step: Tensor
    steps: int

    def levels(self, codes: Tensor) -> Tensor:
        """Return the weights in the middle of what rounds to ``codes``."""
        return self.lowest + codes * self.step

    def clamp(self, w: Tensor) -> Tensor:
        """Return the weights, those beyond the ends at the ends."""
        return w.clamp(self.lowest, self.levels(torch.full_like(self.step, self.steps)))


def quantized_layers(model: nn.Module) -> list[tuple[str, QuantLayer]]:
    """Return the layers whose weights are quantized, by name."""
    return [
        (name, layer)
        for name, layer in model.named_modules()
        if isinstance(layer, QuantLayer) and layer.weight_quantizer is not None
    ]


def weight_codes(layer: QuantLayer) -> Tensor:
    """Return the codes of a layer's weights now, ``uint8``, shape of the weight."""
    assert layer.weight_quantizer is not None
    return layer.weight_quantizer.codes(layer.weight.detach())


def weight_grid(layer: QuantLayer) -> Grid | None:
    """Return where the weights snap; None where that follows from the weights, as with DoReFa."""
    quantizer = layer.weight_quantizer
    if isinstance(quantizer, SteppedWeight):
        step = quantizer.steps(layer.weight.dim())
        return Grid(quantizer.lowest * step, step, quantizer.num_levels - 1)
    if isinstance(quantizer, EWGSWeight):
        lower, steps = quantizer.lower.detach(), 2**quantizer.bits - 1
        width = (quantizer.upper.detach() - lower).clamp(min=SMALLEST)
        return Grid(lower, width / steps, steps)
    return None


def clipping_range(
    quantizer: ActivationQuantizer, x: Tensor
) -> tuple[Tensor | float, Tensor | float]:
    """Return the lowest and the highest level; beyond them the activations ``x`` are clipped.

    Without negative codes there is no lowest: what is below 0 is what a ReLU takes away.
    """
    if isinstance(quantizer, MQBenchActivation):
        return quantizer.ends(x)
    if isinstance(quantizer, LSQPlusActivation):
        offset = quantizer.offset.detach()
        return offset, offset + quantizer.levels * quantizer.step.detach().clamp(min=SMALLEST)
    if isinstance(quantizer, EWGSActivation):
        return quantizer.lower.detach(), quantizer.upper.detach()
    lowest: Tensor | float = -1.0
    highest: Tensor | float = 1.0
    if isinstance(quantizer, LSQActivation):
        step = quantizer.step.detach().clamp(min=SMALLEST)
        lowest, highest = -(quantizer.qmax + 1) * step, quantizer.qmax * step
    elif isinstance(quantizer, PACTActivation):
        highest = quantizer.alpha.detach().clamp(min=SMALLEST)
        lowest = -highest
    return lowest if quantizer.known_signed else -math.inf, highest


def is_at_floor(quantizer: Quantizer) -> bool:
    """Return whether ops use 2^-30 in place of a step, alpha or range of it."""
    own = {name: parameter.detach() for name, parameter in quantizer.named_parameters()}
    sizes = [own[name] for name in ("step", "alpha") if name in own]
    if quantizer.flavour == "mqbench":  # which uses magnitudes
        sizes = [size.abs() for size in sizes]
    if "upper" in own:
        sizes.append(own["upper"] - own["lower"])
    return any(bool((size <= SMALLEST).any()) for size in sizes)
