"""DoReFa's two quantizers, of activations and of weights."""

import torch
from torch import Tensor

from ..functional import dorefa_activation, dorefa_weight
from .quantizer import BITS, Expected, QuantizerBenchmark, round_ste
from .roofline import Traffic

LEVELS = 2**BITS - 1


def eager_activation(x: Tensor, form: str) -> Tensor:
    """Quantize by equation 11 of the paper."""
    y: Tensor = round_ste(torch.clamp(x, 0, 1) * LEVELS) / LEVELS
    return y


def torch_op(x: Tensor, form: str) -> Tensor:
    """Quantize by PyTorch's fixed-step op: the same values."""
    return torch.fake_quantize_per_tensor_affine(x, 1 / LEVELS, 0, 0, LEVELS)


def our_activation(x: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return dorefa_activation(x, bits=BITS, backend=backend)


def expected_activation(grad: Tensor, x: Tensor, form: str) -> Expected:
    """Return the right results; PyTorch's op passes the gradient half a level beyond the range."""
    v = x * LEVELS
    y = torch.round(v.clamp(0, LEVELS)) / LEVELS
    dx = torch.where((x >= 0) & (x <= 1), grad, 0.0)
    return Expected(v, (0, LEVELS), y, dx, 1 / LEVELS, free_levels=1.0)


def eager_weight(w: Tensor, form: str) -> Tensor:
    """Quantize by equation 9; in form ``graph`` the maximum gets a gradient."""
    t = torch.tanh(w)
    maximum = t.abs().max()
    maximum = maximum if form == "graph" else maximum.detach()
    y: Tensor = 2 * (round_ste((t / (2 * maximum) + 0.5) * LEVELS) / LEVELS) - 1
    return y


def our_weight(w: Tensor, form: str, backend: str | None = None) -> Tensor:
    """Quantize by our op."""
    return dorefa_weight(w, bits=BITS, detach_max=form == "detached", backend=backend)


def expected_weight(grad: Tensor, w: Tensor, form: str) -> Expected:
    """Return the right results; the largest weights' gradient is a sum in form ``graph``."""
    t = torch.tanh(w)
    m = t.abs().max()
    v = (t / (2 * m) + 0.5) * LEVELS
    y = 2 * (torch.round(v) / LEVELS) - 1
    largest = (t.abs() == m) & (form == "graph")
    through_max = torch.where(largest, torch.sign(t) / largest.sum(), 0.0) / m.square()
    slope = 1 - t.square()
    dw = (grad / m - through_max * (grad * t).sum()) * slope
    error = through_max.abs() * (grad * t).abs().sum() * slope
    return Expected(v, (0, LEVELS), y, dw, 2 / LEVELS, dx_error=error)


DOREFA_ACTIVATION = QuantizerBenchmark(
    "dorefa_activation",
    eager_activation,
    our_activation,
    expected_activation,
    Traffic(4, extra_bytes=0.25),
    others={"torch-op": torch_op},
)
DOREFA_WEIGHT = QuantizerBenchmark(
    "dorefa_weight",
    eager_weight,
    our_weight,
    expected_weight,
    Traffic(6),  # the maximum needs a read of its own
    forms=("detached", "graph"),
    std=0.05,
)
