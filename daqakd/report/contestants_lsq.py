"""LSQ by everybody: the same values; gradients at the ends differ by convention (see the docs)."""

from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec

import torch
from torch import Tensor

from ..backends import can_run
from ..functional import lsq
from .measure import Case, Contestant, Inputs

QMIN, QMAX = -8, 7
CHANNELS = 64


def along(step: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Shape ``step`` to broadcast along ``axis`` of ``x``."""
    return step if axis is None else step.reshape([-1 if d == axis else 1 for d in range(x.dim())])


def eager(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
    """Quantize by the chain of ATen ops that LSQ repositories write."""
    s = along(step, x, axis)
    v = torch.clamp(x / s.to(x.dtype), QMIN, QMAX)
    return ((torch.round(v) - v).detach() + v) * s.to(x.dtype)


@cache
def compiled() -> Callable[..., Tensor]:
    """Return the same chain by torch.compile, in float32 inside, as a careful user writes it."""
    torch._dynamo.config.recompile_limit = 256  # every size, dtype and granularity is a graph

    def chain(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
        s = along(step, x, axis)
        v = torch.clamp(x.float() / s, QMIN, QMAX)
        return (((torch.round(v) - v).detach() + v) * s).to(x.dtype)

    return torch.compile(chain, fullgraph=True, dynamic=False)


def native_op(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
    """Quantize by PyTorch's own learnable op."""
    zero = torch.zeros_like(step)
    if axis is None:
        return torch._fake_quantize_learnable_per_tensor_affine(x, step, zero, QMIN, QMAX, 1.0)
    return torch._fake_quantize_learnable_per_channel_affine(x, step, zero, axis, QMIN, QMAX, 1.0)


def brevitas(x: Tensor, step: Tensor, axis: int | None) -> Tensor:
    """Quantize by Brevitas's integer quantizer."""
    from brevitas.core.quant import IntQuant

    quantizer = IntQuant(narrow_range=False, signed=True, input_view_impl=torch.nn.Identity())
    return quantizer(along(step, x, axis), torch.tensor(0.0), torch.tensor(4.0), x)


def contestants(device: str) -> dict[str, Contestant]:
    """Return who can run on ``device``, ours last."""
    found: dict[str, Contestant] = {
        "eager": eager,
        "compile": lambda *a: compiled()(*a),
        "torch-op": native_op,
    }
    if find_spec("brevitas"):
        found["brevitas"] = brevitas
    for backend in ("reference", "triton", "native"):
        if can_run("lsq", backend, device, torch.float32) is None:
            run = partial(lsq, bits=4, signed=True, backend=backend)
            found[backend] = lambda x, s, axis, run=run: run(x, s, axis=axis)
    return found


def shape_of(size: int, axis: int | None) -> tuple[int, ...]:
    """Return ``[size]``, or images with 64 channels, or as many as fit, and ``size`` elements."""
    if axis is None:
        return (size,)
    channels = min(CHANNELS, size // 16)
    side = 8 if size >= channels * 64 else 4
    return size // (channels * side * side), channels, side, side


def case(size: int, dtype: torch.dtype, per: str, device: str) -> Case:
    """Return LSQ forward and backward, one step ``per`` ``"tensor"`` or ``"channel"``."""
    axis = 1 if per == "channel" else None
    shape = shape_of(size, axis)

    def make() -> Inputs:
        x = torch.randn(shape, device=device).to(dtype).requires_grad_()
        steps = 1 if axis is None else shape[axis]
        step = torch.full((steps,), 0.25, device=device, requires_grad=True)
        return x, step, torch.randn(shape, device=device).to(dtype)

    def bind(quantize: Contestant) -> Contestant:
        def run(x: Tensor, step: Tensor, grad: Tensor) -> tuple[Tensor, ...]:
            y = quantize(x, step, axis)
            return (y, *torch.autograd.grad(y, (x, step), grad))

        return run

    numel = torch.Size(shape).numel()
    return Case("lsq", numel, dtype, per, device, bind, make, partial(verify, axis=axis))


def verify(results: tuple[Tensor, ...], inputs: Inputs, axis: int | None) -> str | None:
    """Return what is wrong with y or dx, or None.

    dx at the ends differs by convention; ds is not compared, for eager's is noise in bfloat16.
    """
    x, step, grad = (t.detach() for t in inputs)
    v = x.float() / along(step, x, axis)
    wanted = (torch.round(v.clamp(QMIN, QMAX)) * along(step, x, axis)).to(x.dtype)
    if not torch.equal(results[0], wanted):
        return "its values are wrong"
    inside, outside = (v > QMIN) & (v < QMAX), (v > QMAX + 1) | (v < QMIN - 1)
    near = torch.where(inside, grad - results[1], 0).abs() <= 0.01 * grad.abs()
    return "its input gradient is wrong" if results[1][outside].any() or not near.all() else None
