"""Oscillating weights held: a pull to the levels, and weights frozen [Nagel et al. 2022]."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..quant.grids import Grid, quantized_layers, weight_codes, weight_grid
from ..quant.layers import QuantLayer
from .config import TrainConfig
from .oscillation import Oscillations, codes_of
from .part import Part

MOMENTUM = 0.01  # of the frequency and of the mean code, the paper's m


def _grid(layer: QuantLayer) -> Grid:
    grid = weight_grid(layer)
    assert grid is not None
    return grid


class Damping(Part):
    """Pulls weights to the middle of their codes: the gradient of ``c * |levels - clip(w)|^2``.

    c grows from 0 to ``weight`` along a cosine, from the step ``first`` on. The sum is over all
    weights; levels count as constants, and weights beyond the ends are left alone (section 4.1 of
    the paper).

    Args:
        layers: whose weights are pulled.
        weight: c at the end.
        steps: of the whole run.
        first: the step in which c is 0.
    """

    name = "damping"

    def __init__(
        self, layers: Sequence[QuantLayer], weight: float, steps: int, first: int = 0
    ) -> None:
        self.layers, self.weight, self.first, self.steps = layers, weight, first, steps - first

    @torch.no_grad()
    def after_backward(self, step: int) -> None:
        """Add the gradient of the pull."""
        done = (step - self.first) / self.steps
        factor = self.weight * (1 - math.cos(math.pi * min(done, 1))) / 2
        for layer in self.layers:
            w, grid = layer.weight, _grid(layer)
            if w.grad is not None:
                distance = grid.clamp(w) - grid.levels(weight_codes(layer))
                w.grad.add_(distance.to(w.grad.dtype), alpha=2 * factor)


class Freezing(Part):
    """Holds weights that oscillate too often at one code for the rest of the run.

    Section 4.2 of the paper: after each step, the frequency of oscillations and the mean code
    move with momentum 0.01; where the frequency exceeds the threshold, the weight takes the rounded
    mean code, and keeps it whatever becomes of the step size.

    Args:
        layers: whose weights take part.
        threshold: the highest frequency of a free weight, oscillations a step.
    """

    name = "freezing"

    def __init__(self, layers: Sequence[QuantLayer], threshold: float) -> None:
        self.layers, self.threshold = layers, threshold
        self.oscillations: Oscillations | None = None

    def before_epoch(self, epoch: int) -> None:
        """Begin with the codes of now, unless a checkpoint had some."""
        if self.oscillations is None:
            self._begin(codes_of(self.layers))

    def _begin(self, codes: Tensor) -> None:
        self.oscillations = Oscillations(codes)
        self.frequencies, self.means = torch.zeros_like(codes, dtype=torch.float32), codes.float()
        self.frozen, self.held = torch.zeros_like(codes, dtype=torch.bool), codes.clone()

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """Count oscillations, freeze, and put frozen weights at their levels of now."""
        assert self.oscillations is not None
        codes = torch.where(self.frozen, self.held, codes_of(self.layers))
        back = self.oscillations.observe(codes)
        self.frequencies.lerp_(back.float(), MOMENTUM)
        often = (self.frequencies > self.threshold) & ~self.frozen
        self.held = torch.where(often, self.means.round().to(torch.uint8), self.held)
        self.means.lerp_(codes.float(), MOMENTUM)
        self.frozen |= often
        self._hold()

    def _hold(self) -> None:
        counts = [layer.weight.numel() for layer in self.layers]
        parts = self.frozen.split(counts), self.held.split(counts)
        for layer, frozen, held in zip(self.layers, *parts, strict=True):
            w = layer.weight
            levels = _grid(layer).levels(held.view(w.shape)).to(w.dtype)
            w.copy_(torch.where(frozen.view(w.shape), levels, w))

    def end_epoch(self, epoch: int, accuracy: float | None) -> dict[str, float | None]:
        """Return the share of frozen weights."""
        return {"frozen": self.frozen.double().mean().item()}

    def tensors(self) -> dict[str, Tensor]:
        """Return codes, frequencies, means, and what is frozen where."""
        if self.oscillations is None:
            return {}
        own = {"frequencies": self.frequencies, "means": self.means}
        return self.oscillations.tensors() | own | {"frozen": self.frozen, "held": self.held}

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        device = self.layers[0].weight.device
        self._begin(tensors["codes"].to(device))
        assert self.oscillations is not None
        self.oscillations.load(tensors)
        for name in ("frequencies", "means", "frozen", "held"):
            setattr(self, name, tensors[name].to(device))


def _layers_for(option: str, model: nn.Module) -> list[QuantLayer]:
    """Return the layers that an option works on, each weight once.

    Raises:
        InputError: there is none, or one whose levels follow from its weights.
    """
    found: dict[int, QuantLayer] = {}
    for name, layer in quantized_layers(model):
        if weight_grid(layer) is None:
            raise InputError(
                f"{option}: {name} has no levels of its own to hold weights at, its method takes"
                " them from the weights; use method lsq or ewgs, or leave the option out"
            )
        if isinstance(layer.weight, nn.Parameter):
            found.setdefault(id(layer.weight), layer)
    if not found:
        raise InputError(f"{option}: the student has no quantized weights; leave the option out")
    return list(found.values())


def steadying(model: nn.Module, config: TrainConfig, steps: int, first: int) -> list[Part]:
    """Return the parts that the options ask for: ``steps`` of the whole run, from ``first`` on.

    Raises:
        InputError: the student's quantizers do not allow it.
    """
    parts: list[Part] = []
    if config.damping:
        parts.append(Damping(_layers_for("damping", model), config.damping, steps, first))
    threshold = config.freeze_oscillating
    if threshold is not None:
        parts.append(Freezing(_layers_for("freeze_oscillating", model), threshold))
    return parts
