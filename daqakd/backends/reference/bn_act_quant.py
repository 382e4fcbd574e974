"""Batch norm, residual, activation and quantizer in plain PyTorch."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..._ops import ACTIVATION_CODES, METHOD_CODES, accumulation_dtype
from .._layout import broadcast, in_strides_of, like
from ._common import implement, to_accumulation_dtype
from .codes import codes_pack
from .dorefa import dorefa_activation_backward, dorefa_activation_forward
from .ewgs import ewgs_backward, ewgs_forward
from .lsq import lsq_backward, lsq_forward
from .pact import pact_backward, pact_forward


class _Quantizer(NamedTuple):
    """The quantizer of the activation, as the schema lists it."""

    method: int
    parameter: Tensor | None
    upper: Tensor | None
    bits: int
    signed: bool

    def _codes(self) -> tuple[int, int]:
        if self.signed:
            return -(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1
        return 0, 2**self.bits - 1

    def _given(self) -> Tensor:
        assert self.parameter is not None
        return self.parameter

    def forward(self, t: Tensor) -> Tensor:
        """Return the quantized activations."""
        if self.method == METHOD_CODES["lsq"]:
            return lsq_forward(t, self._given(), *self._codes(), None)
        if self.method == METHOD_CODES["pact"]:
            return pact_forward(t, self._given(), self.bits, self.signed, None)[0]
        if self.method == METHOD_CODES["dorefa"]:
            return dorefa_activation_forward(t, self.bits, self.signed)[0]
        return t if self.upper is None else ewgs_forward(t, self._given(), self.upper, self.bits)

    def codes(self, y: Tensor) -> Tensor:
        """Return the packed codes of quantized activations."""
        level = None if self.upper is not None else self.parameter
        return codes_pack(y, level, self.method, self.bits, self.signed)

    def backward(
        self, g: Tensor, t: Tensor, ste: int, grad_scale: float, delta: tuple[float, Tensor | None]
    ) -> tuple[Tensor, ...]:
        """Return the activations' gradient, then those of the parameters."""
        if self.method == METHOD_CODES["lsq"]:
            return lsq_backward(g, t, self._given(), *self._codes(), None, ste, grad_scale)
        if self.method == METHOD_CODES["pact"]:
            mask = pact_forward(t, self._given(), self.bits, self.signed, None)[1]
            return pact_backward(g, mask, self._given(), self.signed, None)
        if self.method == METHOD_CODES["dorefa"]:
            mask = dorefa_activation_forward(t, self.bits, self.signed)[1]
            return (dorefa_activation_backward(g, mask),)
        if self.upper is None:
            return (g,)
        return ewgs_backward(g, t, self._given(), self.upper, self.bits, *delta)


def _others(x: Tensor) -> list[int]:
    return [d for d in range(x.dim()) if d != 1]


def _per_channel(value: Tensor | None, x: Tensor, default: float) -> Tensor:
    """Return one value a channel, in the dtype of ``x``'s sums, to broadcast with it."""
    dtype = accumulation_dtype(x.dtype)
    if value is None:
        return torch.full((), default, dtype=dtype, device=x.device)
    return broadcast(value.to(dtype), x, 1)


class _Norm(NamedTuple):
    """The norm of each channel, to broadcast with the input."""

    mean: Tensor
    factor: Tensor
    shift: Tensor

    def apply(self, x: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return the centred input, and what the activation is applied to."""
        centred = to_accumulation_dtype(x) - self.mean
        u = centred * self.factor + self.shift
        return centred, u if residual is None else u + to_accumulation_dtype(residual)


def _norm_of(x: Tensor, statistics: Tensor, weight: Tensor | None, bias: Tensor | None) -> _Norm:
    mean, invstd = (broadcast(row, x, 1) for row in statistics)
    return _Norm(mean, _per_channel(weight, x, 1.0) * invstd, _per_channel(bias, x, 0.0))


def _activate(u: Tensor, activation: int) -> Tensor:
    if activation == ACTIVATION_CODES["none"]:
        return u
    u = torch.where(u < 0, 0.0, u)
    return torch.where(u > 6, 6.0, u) if activation == ACTIVATION_CODES["relu6"] else u


def _stops(u: Tensor, activation: int) -> Tensor:
    """Return where the activation passes no gradient."""
    if activation == ACTIVATION_CODES["none"]:
        return torch.zeros_like(u, dtype=torch.bool)
    return (u <= 0) | (u >= 6) if activation == ACTIVATION_CODES["relu6"] else u <= 0


def _statistics(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the batch's mean and variance, float64 ``[C]``."""
    wide = x.double()
    mean = wide.mean(_others(x))
    var = (wide - broadcast(mean, x, 1)).square().mean(_others(x))
    return mean, var


def _update(running: Tensor, value: Tensor, momentum: float | Tensor) -> None:
    running.copy_((1 - momentum) * running.double() + momentum * value)


@implement
def bn_act_quant_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    momentum_tensor: Tensor | None,
    eps: float,
    activation: int,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    *arguments, with_activation, with_codes = rest
    quantizer = _Quantizer(*arguments)
    dtype, count = accumulation_dtype(x.dtype), x.numel() // max(x.shape[1], 1)
    if not training:
        running = (value for value in (running_mean, running_var) if value is not None)
        mean, var = (value.double().reshape(-1) for value in running)
    elif count:
        mean, var = _statistics(x)
        share = momentum if momentum_tensor is None else momentum_tensor.double().reshape(())
        if running_mean is not None and running_var is not None:
            _update(running_mean, mean, share)
            _update(running_var, var * (count / max(count - 1, 1)), share)
    else:
        mean, var = x.new_zeros(2, x.shape[1], dtype=torch.float64)
    statistics = torch.stack([mean, (var + eps).rsqrt()]).to(dtype)
    statistics = statistics if count else torch.zeros_like(statistics)
    _, u = _norm_of(x, statistics, weight, bias).apply(x, residual)
    t = _activate(u, activation)
    y = like(quantizer.forward(t), x)
    none = x.new_empty((0,))
    codes = quantizer.codes(y) if with_codes else none.to(torch.uint8)
    return y, like(t, x) if with_activation else none, statistics, codes


@implement
def bn_act_quant_backward(
    grad: Tensor | None,
    grad_activation: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    activation: int,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *arguments, ste, grad_scale, delta, delta_tensor, with_residual = rest
    quantizer, norm = _Quantizer(*arguments), _norm_of(x, statistics, weight, bias)
    centred, u = norm.apply(x, residual)
    t, zero = _activate(u, activation), torch.zeros_like(u)
    g = zero if grad is None else in_strides_of(to_accumulation_dtype(grad), u)
    dt, *parameters = quantizer.backward(g, t, ste, grad_scale, (delta, delta_tensor))
    if grad_activation is not None:
        dt = dt + to_accumulation_dtype(grad_activation)
    du = torch.where(_stops(u, activation), 0.0, dt)
    invstd, count = statistics[1], max(x.numel() // max(x.shape[1], 1), 1)
    dbias = du.double().sum(_others(x))
    dweight = (du.double() * centred.double()).sum(_others(x)) * invstd
    if training:
        pull = centred * broadcast((dweight * invstd / count).to(u.dtype), x, 1)
        dx = norm.factor * (du - broadcast((dbias / count).to(u.dtype), x, 1) - pull)
    else:
        dx = norm.factor * du
    dresidual = like(du, x) if with_residual else x.new_empty((0,))
    dnorm = torch.stack([dweight, dbias]).to(u.dtype)
    none = [statistics.new_empty((0,)) for _ in range(2)]
    dparameter, dupper, *_ = (*parameters, *none)
    return like(dx, x), dresidual, dnorm, dparameter, dupper
