"""What the contestants of all quantizers share: who takes part, on what, and what is right."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial

import torch
from torch import Tensor

from ..backends import can_run
from .measure import Case, Contestant, Inputs

BITS = 4
CHANNELS = 64
# errors allowed, in units of rounding of the result's dtype: of values, and of gradients
VALUE_UNITS, GRADIENT_UNITS = 2, 8


@dataclass(frozen=True)
class Truth:
    """Float64 results, and how far another rounding may lead away from them.

    Args:
        v: place of every element in levels, before clipping.
        ends: lowest and highest code.
        y: values.
        dx: input gradient.
        level: distance of two values.
        sums: gradient of each parameter, the sum of its terms' magnitudes, and the sum of those
            that conventions treat differently; empty when that holds for most.
        slack: error allowed in ``dx``, in units of rounding.
        beyond: levels outside the ends within which the conventions for ``dx`` differ.
    """

    v: Tensor
    ends: tuple[float, float]
    y: Tensor
    dx: Tensor
    level: Tensor | float
    sums: tuple[tuple[Tensor, Tensor, Tensor], ...] = ()
    slack: Tensor | float = 0.0
    beyond: float = 0.0

    def near(self, unit: float) -> Tensor:
        """Return which elements a rounding may carry over a tie or an end."""
        low, high = self.ends
        band = VALUE_UNITS * unit * max(-low, high)
        tie = (self.v - torch.floor(self.v) - 0.5).abs() <= band
        outside = torch.maximum(low - self.v, self.v - high)
        return (tie & (outside < 0.5 + band)) | ((outside >= -band) & (outside <= band))

    def problem(self, y: Tensor, dx: Tensor, *parameters: Tensor) -> str | None:
        """Return what is wrong with a contestant's results, or None."""
        unit, tiny = torch.finfo(y.dtype).eps, torch.finfo(y.dtype).smallest_normal
        near = self.near(unit)
        allowed = VALUE_UNITS * unit * self.y.abs().clamp(min=1.0) + near * self.level
        if not ((y - self.y).abs() <= allowed).all():
            return "its values are wrong"
        outside = torch.maximum(self.ends[0] - self.v, self.v - self.ends[1])
        free = near | ((outside >= 0) & (outside <= self.beyond))
        allowed = GRADIENT_UNITS * unit * (self.dx.abs() + self.slack + tiny)
        if not (((dx - self.dx).abs() <= allowed) | free).all():
            return "its input gradient is wrong"
        for got, (wanted, size, free) in zip(parameters, self.sums, strict=False):
            if not ((got - wanted).abs() <= GRADIENT_UNITS * unit * size + free).all():
                return "its parameter gradients are wrong"
        return None


@dataclass(frozen=True)
class Quantizer:
    """A quantizer's rows: ``case`` says what is measured, ``contestants`` who takes part.

    Args:
        op: name in ``floor.BYTES``, and stem of the op.
        eager: ``(x, *parameters, form) -> y``, the chain of ATen ops that users write.
        ours: the same with ``backend=``.
        truth: ``(grad, x, *parameters, form)``, float64, to the right results.
        starts: starting value of each parameter.
        forms: what there is besides sizes and dtypes, such as the granularity.
        others: further contestants by name.
        spread: standard deviation of the inputs.
    """

    op: str
    eager: Contestant
    ours: Contestant
    truth: Callable[..., Truth]
    starts: tuple[float, ...] = ()
    forms: tuple[str, ...] = ("tensor",)
    others: Mapping[str, Contestant] = field(default_factory=dict)
    spread: float = 1.0

    def contestants(self, device: str) -> dict[str, Contestant]:
        """Return who can run on ``device``, ours last."""
        found = {"eager": self.eager, "compile": compiled(self.eager), **self.others}
        for backend in ("reference", "triton", "native"):
            if can_run(self.op, backend, device, torch.float32) is None:
                found[backend] = partial(self.ours, backend=backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return forward and backward on normally distributed values."""
        shape = shape_of(size, axis_of(form))
        count = 1 if axis_of(form) is None else shape[1]

        def make() -> Inputs:
            x = (self.spread * torch.randn(shape, device=device)).to(dtype).requires_grad_()
            parameters = [
                torch.full((count,), start, device=device, requires_grad=True)
                for start in self.starts
            ]
            return torch.randn(shape, device=device).to(dtype), x, *parameters

        def bind(quantize: Contestant) -> Contestant:
            def run(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
                y = quantize(*inputs, form)
                return (y, *torch.autograd.grad(y, inputs, grad))

            return run

        def verify(results: tuple[Tensor, ...], inputs: Inputs) -> str | None:
            wide = (t.detach().double() for t in inputs)
            return self.truth(*wide, form).problem(*results)

        numel = torch.Size(shape).numel()
        return Case(self.op, numel, dtype, form, device, bind, make, verify)


def axis_of(form: str) -> int | None:
    """Return the axis that has a parameter per index, None for one parameter."""
    return 1 if form == "channel" else None


def along(parameter: Tensor, x: Tensor, form: str) -> Tensor:
    """Shape ``parameter`` to broadcast over ``x``."""
    return parameter.reshape(1, -1, 1, 1) if form == "channel" else parameter


def over(terms: Tensor, at_ends: Tensor, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """Return the sum that a parameter's gradient is, and two that say how exact it can be."""
    dims = (0, 2, 3) if form == "channel" else tuple(range(terms.dim()))
    return terms.sum(dims), terms.abs().sum(dims), at_ends.abs().sum(dims)


def rounded(v: Tensor) -> Tensor:
    """Round with the straight-through gradient, as everybody writes it."""
    return (torch.round(v) - v).detach() + v


@cache
def compiled(chain: Contestant) -> Contestant:
    """Return the chain by torch.compile, in float32 inside, as a careful user writes it."""

    def careful(x: Tensor, *rest: object) -> Tensor:
        y: Tensor = chain(x.float(), *rest)
        return y.to(x.dtype)

    torch._dynamo.config.recompile_limit = 256  # every size, dtype and form is a graph
    return torch.compile(careful, fullgraph=True, dynamic=False)


def shape_of(size: int, axis: int | None) -> tuple[int, ...]:
    """Return ``[size]``, or images with 64 channels, or as many as fit, and ``size`` elements."""
    if axis is None:
        return (size,)
    channels = min(CHANNELS, size // 16)
    side = 8 if size >= channels * 64 else 4
    return size // (channels * side * side), channels, side, side
