"""LSQ by everybody: the same values; gradients at the ends differ by convention (see the docs)."""

from importlib.util import find_spec

import torch
from torch import Tensor

from ..functional import lsq
from .quantizer import BITS, Quantizer, Truth, along, axis_of, rounded

QMIN, QMAX = -(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1


def eager(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by the chain of ATen ops that LSQ repositories write."""
    s = along(step, x, form).to(x.dtype)
    return rounded(torch.clamp(x / s, QMIN, QMAX)) * s


def native_op(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by PyTorch's own learnable op."""
    zero, axis = torch.zeros_like(step), axis_of(form)
    if axis is None:
        return torch._fake_quantize_learnable_per_tensor_affine(x, step, zero, QMIN, QMAX, 1.0)
    return torch._fake_quantize_learnable_per_channel_affine(x, step, zero, axis, QMIN, QMAX, 1.0)


def brevitas(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize by Brevitas's integer quantizer."""
    from brevitas.core.quant import IntQuant

    quantizer = IntQuant(narrow_range=False, signed=True, input_view_impl=torch.nn.Identity())
    y: Tensor = quantizer(along(step, x, form), torch.tensor(0.0), torch.tensor(float(BITS)), x)
    return y


def ours(x: Tensor, step: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return lsq(x, step, bits=BITS, signed=True, axis=axis_of(form), backend=backend)


def truth(grad: Tensor, x: Tensor, step: Tensor, form: str) -> Truth:
    """Return the right results; the step's gradient is not among them."""
    s = along(step, x, form)
    v = x / s
    y = torch.round(v.clamp(QMIN, QMAX)) * s
    dx = torch.where((v >= QMIN) & (v <= QMAX), grad, 0.0)
    return Truth(v, (QMIN, QMAX), y, dx, s, beyond=1.0)


OTHERS = {"torch-op": native_op, **({"brevitas": brevitas} if find_spec("brevitas") else {})}
LSQ = Quantizer("lsq", eager, ours, truth, (0.25,), ("tensor", "channel"), OTHERS)
