"""Batch norm, ReLU and a quantizer in one op against the chain; a form is a method.

With ``-residual`` it is the end of a block: a shortcut is added, and the next one reads the
activation itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ..backends import can_run
from ..functional import bn_act_quant
from .dorefa import DOREFA_ACTIVATION
from .ewgs import DELTA, EWGS
from .lsq import LSQ
from .measure import Case, Inputs, Provider
from .pact import PACT
from .quantizer import BITS, GRADIENT_EPS, VALUE_EPS, Expected, shape_of
from .roofline import Traffic

QUANTIZERS = {"lsq": LSQ, "pact": PACT, "dorefa": DOREFA_ACTIVATION, "ewgs": EWGS}
RESIDUAL = "-residual"
BN_EPS = 1e-5
# forward: x twice, y, and at a block's end the residual and the activation; backward: x and the
# gradient twice, dx, and there the residual and the activation's gradient twice, dresidual
PLAIN, END = Traffic(3 + 5), Traffic(5 + 10)
JUMP = 1.0 + DELTA  # a gradient changes by at most so much of itself where rounding decides


@dataclass(frozen=True)
class Layer:
    """What is normalized, and by what."""

    x: Tensor  # [B, C, H, W]
    residual: Tensor | None
    weight: Tensor  # [C]
    bias: Tensor  # [C]
    running: tuple[Tensor, Tensor]  # [C] each
    parameters: tuple[Tensor, ...]

    @property
    def leaves(self) -> list[Tensor]:
        """What gets a gradient."""
        residual = [] if self.residual is None else [self.residual]
        return [self.x, *residual, self.weight, self.bias, *self.parameters]


def activation(
    x: Tensor, residual: Tensor | None, weight: Tensor, bias: Tensor, mean: Tensor, var: Tensor
) -> Tensor:
    """Return the activation by PyTorch's ops."""
    u = F.batch_norm(x, mean, var, weight, bias, training=True, eps=BN_EPS)
    return torch.relu(u if residual is None else u + residual)


def eager(method: str, layer: Layer) -> tuple[Tensor, ...]:
    """Run PyTorch's norm and activation, then our quantizer; return what a network reads."""
    t = activation(layer.x, layer.residual, layer.weight, layer.bias, *layer.running)
    y = QUANTIZERS[method].ours(t, *layer.parameters, "tensor")
    return (y,) if layer.residual is None else (y, t)


@cache
def _compiled(method: str) -> Provider:
    """Return the chain with the quantizer's formula, by torch.compile in float32 inside."""

    def chain(
        x: Tensor, residual: Tensor | None, norm: Sequence[Tensor], parameters: Sequence[Tensor]
    ) -> tuple[Tensor, ...]:
        t = activation(x.float(), None if residual is None else residual.float(), *norm)
        y = QUANTIZERS[method].eager(t, *parameters, "tensor").to(x.dtype)
        return (y,) if residual is None else (y, t.to(x.dtype))

    torch._dynamo.config.recompile_limit = 256  # every size, dtype and form is a graph
    return torch.compile(chain, fullgraph=True, dynamic=False)


def compiled(method: str, layer: Layer) -> tuple[Tensor, ...]:
    """Run the chain by torch.compile."""
    norm = layer.weight, layer.bias, *layer.running
    read: tuple[Tensor, ...] = _compiled(method)(layer.x, layer.residual, norm, layer.parameters)
    return read


def ours(method: str, layer: Layer, backend: str | None = None) -> tuple[Tensor, ...]:
    """Run our op."""
    result = bn_act_quant(
        *(layer.x, *layer.running, layer.weight, layer.bias),
        residual=layer.residual,
        eps=BN_EPS,
        method=method,
        parameters=layer.parameters,
        bits=BITS,
        signed=method == "lsq",
        delta=DELTA if method == "ewgs" else 0.0,
        with_activation=layer.residual is not None,
        backend=backend,
    )
    return (result,) if layer.residual is None else result


@dataclass(frozen=True)
class BNActQuantBenchmark:
    """Forward and backward of a layer's norm, activation and quantizer in training."""

    op: str = "bn_act_quant"
    forms: tuple[str, ...] = tuple(m + end for m in QUANTIZERS for end in ("", RESIDUAL))
    size_unit: Literal["elements"] = "elements"

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``, ours last."""
        found: dict[str, Provider] = {"eager": eager, "compile": compiled}
        for backend in ("reference", "triton", "native"):
            if can_run(self.op, backend, device, torch.float32) is None:
                found[backend] = partial(ours, backend=backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return a layer of about ``size`` elements."""
        shape, method = shape_of(size, 1), form.removesuffix(RESIDUAL)
        return Case(
            op=self.op,
            numel=torch.Size(shape).numel(),
            dtype=dtype,
            form=form,
            device=device,
            bind=partial(bind, method),
            make=partial(make, shape, dtype, method, form.endswith(RESIDUAL), device),
            verify=partial(verify, method),
            traffic=END if form.endswith(RESIDUAL) else PLAIN,
        )


def make(
    shape: tuple[int, ...], dtype: torch.dtype, method: str, ends: bool, device: str
) -> Inputs:
    """Return the gradients of what is read, and a layer."""

    def normal() -> Tensor:
        return torch.randn(shape, device=device).to(dtype)

    initial = QUANTIZERS[method].initial
    layer = Layer(
        normal().requires_grad_(),
        normal().requires_grad_() if ends else None,
        torch.linspace(0.5, 1.5, shape[1], device=device).requires_grad_(),
        torch.linspace(-0.5, 0.5, shape[1], device=device).requires_grad_(),
        (torch.zeros(shape[1], device=device), torch.ones(shape[1], device=device)),
        tuple(torch.full((1,), v, device=device, requires_grad=True) for v in initial),
    )
    return [normal() for _ in range(1 + ends)], layer


def bind(method: str, provider: Provider) -> Provider:
    """Return a call that gives what is read, and all gradients."""

    def run(grads: list[Tensor], layer: Layer) -> tuple[Any, ...]:
        read = provider(method, layer)
        return read, torch.autograd.grad(read, layer.leaves, grads)

    return run


class Truth:
    """The layer in float64, and how far rounding may lead away from it."""

    def __init__(self, method: str, grads: Sequence[Tensor], layer: Layer, eps: float) -> None:
        wide = [leaf.detach().double() for leaf in layer.leaves]
        ends = layer.residual is not None
        self.x, residual = wide[0], wide[1] if ends else torch.zeros_like(wide[0])
        weight, bias, *parameters = wide[1 + ends :]
        self.eps, self.others = eps, [0, 2, 3]
        var, mean = torch.var_mean(self.x, self.others, correction=0, keepdim=True)
        invstd = (var + BN_EPS).rsqrt()
        self.unit, self.factor = (self.x - mean) * invstd, weight[:, None, None] * invstd
        # a mean is right to the rounding of what it is the mean of
        self.reach = self.unit.abs() + self.x.abs().mean(self.others, keepdim=True) * invstd
        norm = self.unit * weight[:, None, None] + bias[:, None, None]
        u = norm + residual
        self.t, self.size = u.clamp(min=0), 1 + norm.abs() + residual.abs()
        g, grad_t = (*(one.double() for one in grads), torch.zeros_like(u))[:2]
        self.quantizer: Expected = QUANTIZERS[method].expected(g, self.t, *parameters, "tensor")
        self.du = torch.where(u > 0, self.quantizer.dx + grad_t, 0.0)
        self.terms = torch.where(u > 0, self.quantizer.dx.abs() + grad_t.abs(), 0.0)
        at_zero = u.abs() <= 2 * eps * self.size
        # other zeros are exact
        self.close = self.quantizer.ambiguous(2 * eps) & ((u > 0) | at_zero)
        self.doubt = JUMP * g.abs() * (self.close | at_zero) + grad_t.abs() * at_zero

    def _sums(self, terms: Tensor) -> tuple[Tensor, Tensor]:
        """Return a sum of each channel, and the same times the normalized input."""
        weighted = terms * (self.unit if terms is self.du else self.reach)
        return terms.sum(self.others, keepdim=True), weighted.sum(self.others, keepdim=True)

    def values_problem(self, y: Tensor, t: Tensor | None = None) -> str | None:
        """Return what is wrong with the values."""
        wanted, jump = self.quantizer.y, self.close * self.quantizer.spacing
        right = (y - wanted).abs() <= VALUE_EPS * self.eps * wanted.abs().clamp(min=1.0) + jump
        if t is not None:
            right &= (t - self.t).abs() <= VALUE_EPS * self.eps * self.size
        return None if right.all() else "its values are wrong"

    def gradients_problem(self, dx: Tensor, *rest: Tensor) -> str | None:
        """Return what is wrong with the gradients, a residual's before the others."""
        count = self.x.numel() / self.x.shape[1]
        sums, sizes = self._sums(self.du), self._sums(self.terms)
        doubts = self._sums(self.doubt)
        dx_wanted = self.factor * (self.du - (sums[0] + self.unit * sums[1]) / count)
        spread = [self.unit.abs() * both[1] + both[0] for both in (sizes, doubts)]
        size, doubt = self.terms + spread[0] / count, self.doubt + spread[1] / count
        wanted = [("input gradient is", dx_wanted, self.factor * size, self.factor * doubt)]
        if rest[0].dim() == dx.dim():
            wanted.append(("residual gradient is", self.du, self.terms, self.doubt))
        for k in (1, 0):  # weight, bias
            sum_of, size, doubt = (of[k].flatten() for of in (sums, sizes, doubts))
            wanted.append(("norm gradients are", sum_of, size, doubt))
        for of in self.quantizer.parameters:
            doubt = self.doubt.sum() + of.ambiguous
            wanted.append(("parameter gradients are", of.value, of.magnitude, doubt))
        for found, (name, exact, size, doubt) in zip((dx, *rest), wanted, strict=False):
            if not ((found - exact).abs() <= GRADIENT_EPS * self.eps * size + doubt).all():
                return f"its {name} wrong"
        return None


def verify(method: str, results: tuple[Any, ...], inputs: Inputs) -> str | None:
    """Return what is wrong with a provider's results, or None."""
    read, found = results
    grads, layer = inputs
    truth = Truth(method, grads, layer, torch.finfo(read[0].dtype).eps)
    return truth.values_problem(*read) or truth.gradients_problem(*found)


BN_ACT_QUANT = BNActQuantBenchmark()
