"""LSQ: the providers give the same values; gradients at the clip edges differ by convention."""

import torch
from torch import Tensor

from ..functional import lsq
from .quantizer import BITS, Expected, QuantizerBenchmark, axis_of, broadcast, round_ste
from .roofline import Traffic

QMIN, QMAX = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1


def eager(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by the chain of ATen ops that LSQ repositories write."""
    s = broadcast(step, form).to(x.dtype)
    return round_ste(torch.clamp(x / s, QMIN, QMAX)) * s


def torch_op(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by PyTorch's own learnable op."""
    zero, axis = torch.zeros_like(step), axis_of(form)
    if axis is None:
        return torch._fake_quantize_learnable_per_tensor_affine(x, step, zero, QMIN, QMAX, 1.0)
    return torch._fake_quantize_learnable_per_channel_affine(x, step, zero, axis, QMIN, QMAX, 1.0)


def ours(x: Tensor, step: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return lsq(x, step, bits=BITS, signed=True, axis=axis_of(form), backend=backend)


def expected(grad: Tensor, x: Tensor, step: Tensor, form: str) -> Expected:
    """Return the right results; the step's gradient is not among them."""
    s = broadcast(step, form)
    v = x / s
    y = torch.round(v.clamp(QMIN, QMAX)) * s
    dx = torch.where((v >= QMIN) & (v <= QMAX), grad, 0.0)
    return Expected(v, (QMIN, QMAX), y, dx, s, free_levels=1.0)


LSQ = QuantizerBenchmark(
    "lsq",
    eager,
    ours,
    expected,
    Traffic(5),
    initial=(0.25,),
    forms=("tensor", "channel"),
    others={"torch-op": torch_op},
)
