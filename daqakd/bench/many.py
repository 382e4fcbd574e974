"""The weights of a model: one call for all of them, by everybody."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import can_run
from ..functional import dorefa_weight_many, ewgs_many, lsq_many
from ..models import build
from .dorefa import DOREFA_WEIGHT
from .ewgs import DELTA, EWGS
from .lsq import LSQ
from .measure import Case, Contestant, Inputs
from .quantizer import BITS, Quantizer, compiled

ALIKE = 8  # tensors of one size


def _lsq(x: Sequence[Tensor], step: Sequence[Tensor], backend: str) -> Sequence[Tensor]:
    return lsq_many(x, step, bits=BITS, signed=True, backend=backend)


def _dorefa(w: Sequence[Tensor], backend: str) -> Sequence[Tensor]:
    return dorefa_weight_many(w, bits=BITS, backend=backend)


def _ewgs(
    x: Sequence[Tensor], lower: Sequence[Tensor], upper: Sequence[Tensor], backend: str
) -> Sequence[Tensor]:
    return ewgs_many(x, lower, upper, bits=BITS, delta=DELTA, backend=backend)


# form: the op on one tensor, its form there, the op on many
OF_FORM: dict[str, tuple[Quantizer, str, Callable[..., Sequence[Tensor]]]] = {
    "lsq": (LSQ, "tensor", _lsq),
    "dorefa": (DOREFA_WEIGHT, "detached", _dorefa),
    "ewgs": (EWGS, "tensor", _ewgs),
}


class Consume(torch.autograd.Function):
    """What uses the weights: hands every one its gradient, as the layers of a model do."""

    @staticmethod
    def forward(ctx: Any, grads: Sequence[Tensor], *y: Tensor) -> Tensor:
        """Return nothing of interest."""
        ctx.grads = grads
        return y[0].new_zeros(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        return None, *ctx.grads


@dataclass(frozen=True)
class Many:
    """Rows of quantizing many weights, forward and backward; a form is a method.

    Args:
        op: the rows' name.
        shapes: the weights' shapes, by size.
    """

    op: str
    shapes: Callable[[int], list[tuple[int, ...]]]
    forms: tuple[str, ...] = tuple(OF_FORM)

    def contestants(self, device: str) -> dict[str, Contestant]:
        """Return who can run on ``device``: tensor by tensor, compiled, ours alone and together."""
        found: dict[str, Contestant] = {"eager": _by_tensor("eager"), "compile": _compiled}
        for backend in ("triton", "native"):
            if can_run("lsq_many", backend, device, torch.float32) is None:
                found[f"{backend}-single"] = _by_tensor("ours", backend=backend)
                found[backend] = partial(_together, backend=backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return forward and backward on normally distributed weights."""
        quantizer, inner, _ = OF_FORM[form]
        shapes, count = self.shapes(size), len(quantizer.starts)

        def make() -> Inputs:
            weights = [
                (quantizer.spread * torch.randn(shape, device=device)).to(dtype).requires_grad_()
                for shape in shapes
            ]
            parameters = [
                [torch.full((1,), start, device=device, requires_grad=True) for _ in shapes]
                for start in quantizer.starts
            ]
            grads = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
            return grads, weights, *parameters

        def bind(contestant: Contestant) -> Contestant:
            def run(grads: list[Tensor], *lists: list[Tensor]) -> tuple[Any, ...]:
                y = contestant(form, *lists)
                leaves = [leaf for one in lists for leaf in one]
                return y, torch.autograd.grad(Consume.apply(grads, *y), leaves)

            return run

        def verify(results: tuple[Any, ...], inputs: Inputs) -> str | None:
            y, found = results
            rows = [found[k * len(shapes) : (k + 1) * len(shapes)] for k in range(count + 1)]
            for i, one in enumerate(zip(*inputs, strict=True)):
                wide = (t.detach().double() for t in one)
                problem = quantizer.truth(*wide, inner).problem(y[i], *(row[i] for row in rows))
                if problem is not None:
                    return f"tensor {i}: {problem}"
            return None

        numel = sum(torch.Size(shape).numel() for shape in shapes)
        return Case(self.op, numel, dtype, form, device, bind, make, verify)


def _by_tensor(which: str, **options: str) -> Contestant:
    def run(form: str, *lists: list[Tensor]) -> list[Tensor]:
        quantizer, inner, _ = OF_FORM[form]
        one = getattr(quantizer, which)
        return [one(*tensors, inner, **options) for tensors in zip(*lists, strict=True)]

    return run


def _compiled(form: str, *lists: list[Tensor]) -> list[Tensor]:
    quantizer, inner, _ = OF_FORM[form]
    chain = compiled(quantizer.eager)
    return [chain(*tensors, inner) for tensors in zip(*lists, strict=True)]


def _together(form: str, *lists: list[Tensor], backend: str) -> Sequence[Tensor]:
    return OF_FORM[form][2](*lists, backend=backend)


def resnet20_shapes(_: int = 0) -> list[tuple[int, ...]]:
    """Return the shapes of ResNet-20's weights."""
    layers = [m for m in build("resnet20", 10).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [tuple(layer.weight.shape) for layer in layers]


def alike(size: int) -> list[tuple[int, ...]]:
    """Return the shapes of a few tensors of ``size`` elements."""
    return [(size,)] * ALIKE


RESNET20 = Many("resnet20", resnet20_shapes)
MANY = Many("many", alike)
