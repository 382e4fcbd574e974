"""What a compiled graph has in place of ``bn_act_quant``: PyTorch's ops, the quantizer's own."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..backends import choose
from ._apply import implementation
from .dorefa import dorefa_activation
from .ewgs import ewgs
from .lsq import lsq
from .pact import pact


def activated(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    training: bool,
    momentum: float | Tensor,
    eps: float,
    activation: str,
) -> Tensor:
    """Return the activation by PyTorch's own ops, which a compiler fuses itself."""
    if isinstance(momentum, Tensor) and training and running_mean is not None:
        others = [d for d in range(x.dim()) if d != 1]
        var, mean = torch.var_mean(x.detach().to(running_mean.dtype), others)
        running_mean.lerp_(mean, momentum)
        running_var.lerp_(var, momentum)  # type: ignore[union-attr]
        running_mean = running_var = None
    rate = 0.0 if isinstance(momentum, Tensor) else momentum
    norm = running_mean, running_var, weight, bias, training, rate, eps
    u = torch.nn.functional.batch_norm(x, *norm)
    u = u if residual is None else u + residual
    if activation == "relu6":
        return torch.nn.functional.relu6(u)
    return torch.relu(u) if activation == "relu" else u


def quantized(
    t: Tensor,
    method: str | None,
    parameters: Sequence[Tensor],
    bits: int,
    signed: bool,
    ste: str,
    grad_scale: float | None,
    delta: float | Tensor,
) -> Tensor:
    """Return what the quantizer's own function gives."""
    if method == "lsq":
        return lsq(t, *parameters, bits=bits, signed=signed, ste=ste, grad_scale=grad_scale)
    if method == "pact":
        return pact(t, *parameters, bits=bits, signed=signed)
    if method == "dorefa":
        return dorefa_activation(t, bits=bits, signed=signed)
    return t if method is None else ewgs(t, *parameters, bits=bits, delta=delta)


def packed(
    y: Tensor, method: int, level: Tensor | None, bits: int, signed: bool, backend: str | None
) -> Tensor:
    """Return the packed codes of quantized values."""
    pack = implementation("codes_pack", choose("codes", y, backend))
    codes: Tensor = pack(y.detach(), level, method, bits, signed)
    return codes
