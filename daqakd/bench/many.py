"""The weights of a model: one call for all of them against one call for each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ..backends import can_run
from ..functional import dorefa_weight_many, ewgs_many, lsq_many
from ..models import build
from .dorefa import DOREFA_WEIGHT
from .ewgs import DELTA, EWGS
from .lsq import LSQ
from .measure import Case, Inputs, Provider
from .quantizer import BITS, QuantizerBenchmark, compiled

NUM_EQUAL = 8  # tensors of one size


def _lsq(x: Sequence[Tensor], step: Sequence[Tensor], backend: str) -> Sequence[Tensor]:
    return lsq_many(x, step, bits=BITS, signed=True, backend=backend)


def _dorefa(w: Sequence[Tensor], backend: str) -> Sequence[Tensor]:
    return dorefa_weight_many(w, bits=BITS, backend=backend)


def _ewgs(
    x: Sequence[Tensor], lower: Sequence[Tensor], upper: Sequence[Tensor], backend: str
) -> Sequence[Tensor]:
    return ewgs_many(x, lower, upper, bits=BITS, delta=DELTA, backend=backend)


class Method(NamedTuple):
    """A weight quantizer, on one tensor and on many."""

    single: QuantizerBenchmark
    single_form: str
    many: Callable[..., Sequence[Tensor]]


METHODS = {
    "lsq": Method(LSQ, "tensor", _lsq),
    "dorefa": Method(DOREFA_WEIGHT, "detached", _dorefa),
    "ewgs": Method(EWGS, "tensor", _ewgs),
}


class Consume(torch.autograd.Function):
    """Stands for the layers of a model: gives every quantized weight its gradient."""

    @staticmethod
    def forward(ctx: Any, grads: Sequence[Tensor], *y: Tensor) -> Tensor:
        """Return a scalar of no value to call backward on: making one launches nothing."""
        ctx.grads = grads
        return y[0].new_empty(())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients."""
        return None, *ctx.grads


@dataclass(frozen=True)
class ManyBenchmark:
    """Quantizing many weights, forward and backward; a form is a method.

    Args:
        op: the benchmark's name.
        shapes: the weights' shapes, by size.
        size_unit: what a size counts.
    """

    op: str
    shapes: Callable[[int], list[tuple[int, ...]]]
    size_unit: Literal["elements", "model"]
    forms: tuple[str, ...] = tuple(METHODS)

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``; ``-single`` calls once per tensor."""
        found: dict[str, Provider] = {"eager": _by_tensor("eager"), "compile": _compiled}
        for backend in ("triton", "native"):
            if can_run("lsq_many", backend, device, torch.float32) is None:
                found[f"{backend}-single"] = _by_tensor("ours", backend=backend)
                found[backend] = partial(_together, backend=backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return forward and backward on normally distributed weights."""
        shapes = self.shapes(size)
        return Case(
            op=self.op,
            numel=sum(torch.Size(shape).numel() for shape in shapes),
            dtype=dtype,
            form=form,
            device=device,
            bind=partial(_bind, form),
            make=partial(_inputs, shapes, dtype, form, device),
            verify=partial(_verify, form),
        )


def _inputs(shapes: list[tuple[int, ...]], dtype: torch.dtype, form: str, device: str) -> Inputs:
    """Return lists over the tensors: output gradients, weights, and each parameter."""
    single = METHODS[form].single
    weights = [
        (single.std * torch.randn(shape, device=device)).to(dtype).requires_grad_()
        for shape in shapes
    ]
    parameters = [
        [torch.full((1,), value, device=device, requires_grad=True) for _ in shapes]
        for value in single.initial
    ]
    grads = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    return grads, weights, *parameters


def _bind(form: str, provider: Provider) -> Provider:
    def run(grads: list[Tensor], *lists: list[Tensor]) -> tuple[Any, ...]:
        y = provider(form, *lists)
        leaves = [leaf for one in lists for leaf in one]
        return y, torch.autograd.grad(Consume.apply(grads, *y), leaves, grads[0].view(-1)[0])

    return run


def _verify(form: str, results: tuple[Any, ...], inputs: Inputs) -> str | None:
    """Verify the results tensor by tensor."""
    y, found = results
    method, num_tensors = METHODS[form], len(y)
    grads = [found[start : start + num_tensors] for start in range(0, len(found), num_tensors)]
    for i, tensors in enumerate(zip(*inputs, strict=True)):
        wide = (t.detach().double() for t in tensors)
        wanted = method.single.expected(*wide, method.single_form)
        problem = wanted.problem(y[i], *(grad[i] for grad in grads))
        if problem is not None:
            return f"tensor {i}: {problem}"
    return None


def _by_tensor(which: str, **options: str) -> Provider:
    def run(form: str, *lists: list[Tensor]) -> list[Tensor]:
        single, single_form, _ = METHODS[form]
        quantize = getattr(single, which)
        return [quantize(*tensors, single_form, **options) for tensors in zip(*lists, strict=True)]

    return run


def _compiled(form: str, *lists: list[Tensor]) -> list[Tensor]:
    single, single_form, _ = METHODS[form]
    chain = compiled(single.eager)
    return [chain(*tensors, single_form) for tensors in zip(*lists, strict=True)]


def _together(form: str, *lists: list[Tensor], backend: str) -> Sequence[Tensor]:
    return METHODS[form].many(*lists, backend=backend)


def resnet20_shapes(_: int = 0) -> list[tuple[int, ...]]:
    """Return the shapes of ResNet-20's weights."""
    layers = [m for m in build("resnet20", 10).modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    return [tuple(layer.weight.shape) for layer in layers]


def equal_shapes(size: int) -> list[tuple[int, ...]]:
    """Return the shapes of a few tensors of ``size`` elements."""
    return [(size,)] * NUM_EQUAL


RESNET20 = ManyBenchmark("resnet20", resnet20_shapes, "model")
MANY = ManyBenchmark("many", equal_shapes, "elements")
