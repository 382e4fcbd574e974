"""The quantizers as their common laws see them: oracle, parameters, forms, boundaries."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

import pytest
import torch
from torch import Tensor

from daqakd import _ops, functional

from . import cases, tolerance, truth

STES = tuple(_ops.STE_CODES)
PAIRS = ((1, False), (2, True), (2, False), (4, True), (8, True), (8, False))
Factor = dict[str, dict]  # options by readable name


def widths(*pairs: tuple[int, bool]) -> Factor:
    return {
        f"{bits}-{'signed' if signed else 'unsigned'}": {"bits": bits, "signed": signed}
        for bits, signed in pairs
    }


SIGNED: Factor = {"unsigned": {"signed": False}, "signed": {"signed": True}}
STE: Factor = {ste: {"ste": ste} for ste in STES}
MAXIMUM: Factor = {"detached": {"detach_max": True}, "in-graph": {"detach_max": False}}
DELTA: Factor = {"0": {"delta": 0.0}, "0.5": {"delta": 0.5}}
BITS: Factor = {str(bits): {"bits": bits} for bits in (1, 2, 4, 8)}
LEVELS: Factor = {str(levels): {"levels": levels} for levels in (2, 3, 4, 16, 255, 256)}
MASK_WIDTHS = widths((1, False), (2, False), (2, True), (4, True), (8, False), (8, True))


@dataclass(frozen=True, eq=False)
class Quantizer:
    """A quantizer without learned parameters whose gradients are exact; others override.

    Attributes:
        name: what the backends know it by.
        function: the public function.
        oracle: what it must give, in float64.
        options: what is kept fixed where the layout of the input changes.
        widths: options that cover the bits, one factor a key.
        forms: options that meet every layout, one factor a key.
        per_channel: whether parameters may differ along an axis.
        scale: standard deviation of the inputs.
    """

    name: str
    function: Callable[..., Tensor]
    oracle: Callable[..., Tensor]
    options: dict
    widths: dict[str, Factor]
    forms: dict[str, Factor] = field(default_factory=dict)
    per_channel: bool = False
    scale: float = 1.0

    def axes(self, x: Tensor) -> list[int | None]:
        """Return None and, where parameters may differ along one, every axis."""
        return cases.axes(x) if self.per_channel else [None]

    def parameters(self, x: Tensor, axis: int | None) -> tuple[Tensor, ...]:
        """Return parameters of different, unround values."""
        return ()

    def varied(self, index: int) -> dict:
        """Return options that change from one layout, dtype and axis to the next."""
        return {}

    def input_at_width(self, dtype: torch.dtype, options: dict) -> Tensor:
        return cases.Case("rows", (31, 33)).make(dtype)

    def results(self, inputs: tuple, g: Tensor, backend: str, **options) -> tuple[Tensor, ...]:
        """Return the value and the gradients."""
        run = partial(self.function, backend=backend)
        return truth.with_gradients(run, inputs, g, **options)

    def exact(self, inputs: list, g: Tensor, decide: torch.dtype, **options) -> tuple[Tensor, ...]:
        """Return value and gradients in float64; codes of gradients are decided in ``decide``."""
        return truth.with_gradients(self.oracle, inputs, g, **options)

    def near(self, inputs: list, decide: torch.dtype, **options) -> tuple[Tensor, Tensor | float]:
        """Return which values are so near a boundary that they may flip, and a level's size."""
        raise NotImplementedError

    def check_gradients(self, found: list[Tensor], exact: list[Tensor], options: dict) -> None:
        """Compare the gradients of the input and of the parameters."""
        assert torch.equal(found[0].double(), exact[0])
        for gradient, wanted in zip(found[1:], exact[1:], strict=True):
            tolerance.check_close(gradient, wanted)


class Lsq(Quantizer):
    def parameters(self, x, axis):
        dtype = cases.parameter_dtype(x.dtype)
        if axis is None:
            return (torch.tensor(0.37, dtype=dtype),)
        return (0.31 + 0.07 * torch.arange(x.shape[axis], dtype=dtype) ** 0.5,)

    def varied(self, index):
        return {"ste": STES[index % len(STES)]}

    def input_at_width(self, dtype, options):
        high = truth.code_range(options["bits"], options["signed"])[1]
        return cases.Case("rows", (31, 33)).make(dtype, scale=0.3 * (high + 1))

    def results(self, inputs, g, backend, **options):
        return super().results(inputs, g, backend, grad_scale=0.25, **options)

    def exact(self, inputs, g, decide, **options):
        run = partial(truth.lsq, decide=decide)
        _, dx, ds = truth.with_gradients(run, inputs, g, **options)
        return truth.lsq(*inputs, **options), dx, 0.25 * ds

    def near(self, inputs, decide, *, bits, signed, axis, ste):
        levels = truth.along(inputs[1], inputs[0], axis)
        v = inputs[0] / levels
        distance = tolerance.distance_to_boundary(v, *truth.code_range(bits, signed))
        return distance <= tolerance.band_of(v, decide), levels


class Pact(Quantizer):
    def parameters(self, x, axis):
        dtype = cases.parameter_dtype(x.dtype)
        if axis is None:
            return (torch.tensor(1.1, dtype=dtype),)
        return (0.7 + 0.13 * torch.arange(x.shape[axis], dtype=dtype) ** 0.5,)

    def near(self, inputs, decide, *, bits, signed, axis):
        n = truth.level_count(bits, signed)
        levels = truth.along(inputs[1], inputs[0], axis) / n
        v = inputs[0] / levels
        distance = tolerance.distance_to_boundary(v, -n if signed else 0, n)
        return distance <= tolerance.band_of(v, decide), levels


class DorefaWeight(Quantizer):
    def input_at_width(self, dtype, options):
        return cases.Case("kernels", (8, 5, 3, 3)).make(dtype, scale=self.scale)

    def exact(self, inputs, g, decide, **options):
        if inputs[0].numel() == 0:  # without a largest weight
            return inputs[0], inputs[0]
        return super().exact(inputs, g, decide, **options)

    def near(self, inputs, decide, *, bits, detach_max):
        t, n = torch.tanh(inputs[0]), 2**bits - 1
        if bits == 1 or t.numel() == 0:
            return torch.zeros_like(t).bool(), 2 / n
        v = (t / (2 * t.abs().max()) + 0.5) * n
        band = tolerance.band_of(v.clamp(min=n), decide)
        return tolerance.distance_to_boundary(v, 0, n) <= band, 2 / n

    def check_gradients(self, found, exact, options):
        tolerance.check_close(found[0], exact[0])


class DorefaActivation(Quantizer):
    def input_at_width(self, dtype, options):
        eighths = torch.arange(-9, 10).to(dtype) / 8
        return torch.cat([cases.Case("n", (1025,)).make(dtype), eighths])

    def near(self, inputs, decide, *, bits, signed):
        n = truth.level_count(bits, signed)
        v = inputs[0] * n
        distance = tolerance.distance_to_boundary(v, -n if signed else 0, n)
        return (distance > 0) & (distance <= tolerance.band_of(v, decide)), 1 / n


class Ewgs(Quantizer):
    def parameters(self, x, axis):
        dtype = cases.parameter_dtype(x.dtype)
        return torch.tensor(-0.9, dtype=dtype), torch.tensor(1.1, dtype=dtype)

    def near(self, inputs, decide, *, bits, delta):
        x, lower, upper = inputs
        n = 2**bits - 1
        v = (x - lower) / (upper - lower) * n
        band = tolerance.band_of(v.clamp(min=n), decide)
        return tolerance.distance_to_boundary(v, 0, n) <= band, 1 / n

    def check_gradients(self, found, exact, options):
        """The error of the rounding is itself only known to the rounding of the dtype."""
        for gradient, wanted in zip(found, exact, strict=True):
            floor = tolerance.VALUE_FLOORS[gradient.dtype] * (1 + 4 * options["delta"])
            tolerance.check_close(gradient, wanted, floor=floor)


class LsqPlus(Quantizer):
    def parameters(self, x, axis):
        dtype = cases.parameter_dtype(x.dtype)
        return torch.tensor(0.37, dtype=dtype), torch.tensor(-0.81, dtype=dtype)

    def results(self, inputs, g, backend, **options):
        return super().results(inputs, g, backend, grad_scale=0.25, **options)

    def exact(self, inputs, g, decide, **options):
        run = partial(truth.lsqplus, decide=decide)
        _, dx, *others = truth.with_gradients(run, inputs, g, **options)
        return truth.lsqplus(*inputs, **options), dx, *(0.25 * other for other in others)

    def near(self, inputs, decide, *, bits):
        x, step, offset = inputs
        v = (x - offset) / step
        distance = tolerance.distance_to_boundary(v, 0, 2**bits - 1)
        return distance <= tolerance.band_of(v, decide), step


class Seq(Quantizer):
    def parameters(self, x, axis):
        return LSQ.parameters(x, axis)

    def results(self, inputs, g, backend, **options):
        return super().results(inputs, g, backend, grad_scale=0.25, **options)

    def exact(self, inputs, g, decide, **options):
        run = partial(truth.seq, decide=decide)
        _, dx, ds = truth.with_gradients(run, inputs, g, **options)
        return truth.seq(*inputs, **options), dx, 0.25 * ds

    def near(self, inputs, decide, *, levels, axis):
        """Boundaries are whole positions where levels lie between them, else halves."""
        spacing = truth.along(inputs[1], inputs[0], axis)
        v, end = inputs[0] / spacing, (levels - 1) / 2
        shift = 0.5 if levels % 2 == 0 else 0.0
        distance = tolerance.distance_to_boundary(v - shift, -end - shift, end - shift)
        return distance <= tolerance.band_of(v, decide), spacing


LSQ = Lsq(
    *("lsq", functional.lsq, truth.lsq, {"bits": 3, "signed": True}),
    widths={"width": widths(*PAIRS), "ste": STE},
    per_channel=True,
)
PACT = Pact(
    *("pact", functional.pact, truth.pact, {"bits": 3, "signed": False}),
    widths={"width": MASK_WIDTHS},
    per_channel=True,
)
DOREFA_WEIGHT = DorefaWeight(
    *("dorefa_weight", functional.dorefa_weight, truth.dorefa_weight, {"bits": 3}),
    widths={"bits": BITS, "detach_max": MAXIMUM},
    forms={"detach_max": MAXIMUM},
    scale=0.4,
)
DOREFA_ACTIVATION = DorefaActivation(
    *("dorefa_activation", functional.dorefa_activation, truth.dorefa_activation, {"bits": 3}),
    widths={"width": MASK_WIDTHS},
    forms={"signed": SIGNED},
)
EWGS = Ewgs(
    *("ewgs", functional.ewgs, truth.ewgs, {"bits": 3}),
    widths={"bits": BITS, "delta": {"0.5": DELTA["0.5"]}},
    forms={"delta": DELTA},
)
LSQPLUS = LsqPlus(
    *("lsqplus", functional.lsqplus, truth.lsqplus, {"bits": 3}), widths={"bits": BITS}
)
SEQ = Seq(
    *("seq", functional.seq, truth.seq, {"levels": 4}),
    widths={"levels": LEVELS},
    forms={"levels": {name: LEVELS[name] for name in ("3", "4")}},
    per_channel=True,
)
QUANTIZERS = (LSQ, PACT, DOREFA_WEIGHT, DOREFA_ACTIVATION, EWGS, LSQPLUS, SEQ)


def check_against_truth(q: Quantizer, x: Tensor, axis: int | None, backend: str, **options) -> None:
    """Compare values within the boundary band, and gradients at the op's own codes."""
    inputs, g = (x, *q.parameters(x, axis)), cases.like_in_other_strides(x)
    if q.per_channel:
        options["axis"] = axis
    y, *gradients = q.results(inputs, g, backend, **options)
    wide, decide = truth.in_double(inputs), _ops.accumulation_dtype(x.dtype)
    exact, *exact_gradients = q.exact(wide, g.double(), decide, **options)
    tolerance.check_quantized(y, exact, *q.near(wide, decide, **options))
    q.check_gradients(gradients, exact_gradients, options)
    for parameter, gradient in zip(inputs[1:], gradients[1:], strict=True):
        assert gradient.dtype == parameter.dtype
    tolerance.check_layout(y, x)
    tolerance.check_layout(gradients[0], x)


def combinations(
    quantizer: Quantizer, factors: dict[str, Factor], whole: bool = False, **first
) -> Iterator:
    """Yield parameters (quantizer, values of ``first``, options, dtype, backend).

    ``whole`` leaves nothing to the slow tests.
    """
    for found in cases.combinations(**first, **factors):
        *chosen, dtype, backend = found.values
        options = {k: v for some in chosen[len(first) :] for k, v in some.items()}
        yield pytest.param(
            quantizer,
            *chosen[: len(first)],
            options,
            dtype,
            backend,
            id=f"{quantizer.name}-{found.id}",
            marks=() if whole else found.marks,
        )
