"""DoReFa's two quantizers by everybody."""

import torch
from torch import Tensor

from ..functional import dorefa_activation, dorefa_weight
from .quantizer import BITS, Quantizer, Truth, rounded

LEVELS = 2**BITS - 1


def eager_activation(x: Tensor, form: str) -> Tensor:
    """Quantize by equation 11 of the paper."""
    y: Tensor = rounded(torch.clamp(x, 0, 1) * LEVELS) / LEVELS
    return y


def native_op(x: Tensor, form: str) -> Tensor:
    """Quantize by PyTorch's fixed-step op: the same values."""
    return torch.fake_quantize_per_tensor_affine(x, 1 / LEVELS, 0, 0, LEVELS)


def our_activation(x: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return dorefa_activation(x, bits=BITS, backend=backend)


def activation_truth(grad: Tensor, x: Tensor, form: str) -> Truth:
    """Return the right results; beyond the ends PyTorch's op passes half a level's gradient."""
    v = x * LEVELS
    y = torch.round(v.clamp(0, LEVELS)) / LEVELS
    dx = torch.where((x >= 0) & (x <= 1), grad, 0.0)
    return Truth(v, (0, LEVELS), y, dx, 1 / LEVELS, beyond=1.0)


def eager_weight(w: Tensor, form: str) -> Tensor:
    """Quantize by equation 9; in form ``graph`` the maximum gets a gradient."""
    t = torch.tanh(w)
    maximum = t.abs().max()
    maximum = maximum if form == "graph" else maximum.detach()
    y: Tensor = 2 * (rounded((t / (2 * maximum) + 0.5) * LEVELS) / LEVELS) - 1
    return y


def our_weight(w: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return dorefa_weight(w, bits=BITS, detach_max=form == "detached", backend=backend)


def weight_truth(grad: Tensor, w: Tensor, form: str) -> Truth:
    """Return the right results; the largest weights' gradient is a sum in form ``graph``."""
    t = torch.tanh(w)
    m = t.abs().max()
    v = (t / (2 * m) + 0.5) * LEVELS
    y = 2 * (torch.round(v) / LEVELS) - 1
    largest = (t.abs() == m) & (form == "graph")
    share = torch.where(largest, torch.sign(t) / largest.sum(), 0.0) / m.square()
    slope = 1 - t.square()
    dw = (grad / m - share * (grad * t).sum()) * slope
    slack = share.abs() * (grad * t).abs().sum() * slope
    return Truth(v, (0, LEVELS), y, dw, 2 / LEVELS, slack=slack)


DOREFA_ACTIVATION = Quantizer(
    "dorefa_activation",
    eager_activation,
    our_activation,
    activation_truth,
    others={"torch-op": native_op},
)
DOREFA_WEIGHT = Quantizer(
    "dorefa_weight",
    eager_weight,
    our_weight,
    weight_truth,
    forms=("detached", "graph"),
    spread=0.05,
)
