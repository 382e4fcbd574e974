"""What the quantizers' benchmarks have in common: cases, providers, verification."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ..backends import can_run
from .measure import Case, Inputs, Provider
from .roofline import Traffic

BITS = 4
CHANNELS = 64
# errors allowed, in units of the result dtype's eps: of values, and of gradients
VALUE_EPS, GRADIENT_EPS = 2, 8


class ParameterGradient(NamedTuple):
    """A parameter's gradient in float64, which is a sum, and how exact it can be."""

    value: Tensor
    magnitude: Tensor  # the sum of the terms' magnitudes
    ambiguous: Tensor  # the same over the terms that conventions at the clip edges treat apart


@dataclass(frozen=True)
class Expected:
    """Float64 results, and how far rounding and conventions may lead away from them.

    Args:
        position: every element in units of levels, before clipping.
        codes: lowest and highest code.
        y: values.
        dx: input gradient.
        spacing: distance of two neighbouring values.
        parameters: gradient of each parameter; empty where conventions differ in most terms.
        dx_error: error allowed in ``dx``, in units of eps.
        free_levels: levels outside the codes within which the conventions for ``dx`` differ.
    """

    position: Tensor
    codes: tuple[float, float]
    y: Tensor
    dx: Tensor
    spacing: Tensor | float
    parameters: tuple[ParameterGradient, ...] = ()
    dx_error: Tensor | float = 0.0
    free_levels: float = 0.0

    def _outside(self) -> Tensor:
        """Return how many levels each element lies outside the codes, negative within."""
        return torch.maximum(self.codes[0] - self.position, self.position - self.codes[1])

    def ambiguous(self, eps: float) -> Tensor:
        """Return which elements a rounding error may carry over a tie or a clip edge."""
        band = VALUE_EPS * eps * max(-self.codes[0], self.codes[1])
        tie = (self.position - torch.floor(self.position) - 0.5).abs() <= band
        outside = self._outside()
        return (tie & (outside < 0.5 + band)) | ((outside >= -band) & (outside <= band))

    def problem(self, y: Tensor, dx: Tensor, *parameters: Tensor) -> str | None:
        """Return what is wrong with a provider's results, or None."""
        eps, tiny = torch.finfo(y.dtype).eps, torch.finfo(y.dtype).smallest_normal
        ambiguous, outside = self.ambiguous(eps), self._outside()
        allowed = VALUE_EPS * eps * self.y.abs().clamp(min=1.0) + ambiguous * self.spacing
        if not ((y - self.y).abs() <= allowed).all():
            return "its values are wrong"
        free = ambiguous | ((outside >= 0) & (outside <= self.free_levels))
        allowed = GRADIENT_EPS * eps * (self.dx.abs() + self.dx_error + tiny)
        if not (((dx - self.dx).abs() <= allowed) | free).all():
            return "its input gradient is wrong"
        for found, wanted in zip(parameters, self.parameters, strict=False):
            allowed = GRADIENT_EPS * eps * wanted.magnitude + wanted.ambiguous
            if not ((found - wanted.value).abs() <= allowed).all():
                return "its parameter gradients are wrong"
        return None


@dataclass(frozen=True)
class QuantizerBenchmark:
    """The forward and backward pass of a quantizer.

    Args:
        op: stem of the op.
        eager: ``(x, *parameters, form) -> y``, the chain of ATen ops that users write.
        ours: the same with ``backend=``.
        expected: ``(grad, x, *parameters, form)``, float64, to the right results.
        traffic: what the op has to read and write.
        initial: value of each parameter.
        forms: what there is besides sizes and dtypes, such as the granularity.
        others: further providers by name.
        std: standard deviation of the inputs.
    """

    op: str
    eager: Provider
    ours: Provider
    expected: Callable[..., Expected]
    traffic: Traffic
    initial: tuple[float, ...] = ()
    forms: tuple[str, ...] = ("tensor",)
    others: Mapping[str, Provider] = field(default_factory=dict)
    std: float = 1.0
    size_unit: Literal["elements"] = "elements"

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``, ours last."""
        found = {"eager": self.eager, "compile": compiled(self.eager), **self.others}
        for backend in ("reference", "triton", "native"):
            if can_run(self.op, backend, device, torch.float32) is None:
                found[backend] = partial(self.ours, backend=backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return forward and backward on normally distributed values."""
        shape = shape_of(size, axis_of(form))
        return Case(
            op=self.op,
            numel=torch.Size(shape).numel(),
            dtype=dtype,
            form=form,
            device=device,
            bind=partial(self._bind, form),
            make=partial(self._inputs, shape, dtype, form, device),
            verify=partial(self._verify, form),
            traffic=self.traffic,
        )

    def _inputs(self, shape: tuple[int, ...], dtype: torch.dtype, form: str, device: str) -> Inputs:
        x = (self.std * torch.randn(shape, device=device)).to(dtype).requires_grad_()
        count = 1 if axis_of(form) is None else shape[1]
        parameters = [
            torch.full((count,), value, device=device, requires_grad=True) for value in self.initial
        ]
        return torch.randn(shape, device=device).to(dtype), x, *parameters

    def _bind(self, form: str, provider: Provider) -> Provider:
        def run(grad: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
            y = provider(*inputs, form)
            return (y, *torch.autograd.grad(y, inputs, grad))

        return run

    def _verify(self, form: str, results: tuple[Tensor, ...], inputs: Inputs) -> str | None:
        wide = (t.detach().double() for t in inputs)
        return self.expected(*wide, form).problem(*results)


def axis_of(form: str) -> int | None:
    """Return the axis that has a parameter per index, None for one parameter."""
    return 1 if form == "channel" else None


def broadcast(parameter: Tensor, form: str) -> Tensor:
    """Shape ``parameter`` to broadcast over images ``[B, C, H, W]``, or over anything."""
    return parameter.reshape(1, -1, 1, 1) if form == "channel" else parameter


def summed(terms: Tensor, ambiguous: Tensor, form: str) -> ParameterGradient:
    """Return the gradient whose terms these are; ``ambiguous`` has its terms at the clip edges."""
    dims = (0, 2, 3) if form == "channel" else tuple(range(terms.dim()))
    return ParameterGradient(terms.sum(dims), terms.abs().sum(dims), ambiguous.abs().sum(dims))


def round_ste(v: Tensor) -> Tensor:
    """Round with the straight-through gradient, in the form that repositories write."""
    return (torch.round(v) - v).detach() + v


@cache
def compiled(chain: Provider) -> Provider:
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
