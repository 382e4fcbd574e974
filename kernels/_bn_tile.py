"""A tile of bn_act_quant: forward, and the gradients; float32 inside, whatever is stored."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ._maths import clip
from ._norm import normalize
from ._partition import store_tile_mask
from ._quantizers import quantized, quantized_codes, quantizer_gradient

RELU, RELU6 = tl.constexpr(1), tl.constexpr(2)  # codes of activations


class Elements(NamedTuple):
    """The large tensors, dense with the same strides; None for what is not there."""

    x: Any
    residual: Any = None
    y: Any = None
    activation: Any = None
    codes: Any = None  # packed, of y
    grad: Any = None
    grad_activation: Any = None
    dx: Any = None
    dresidual: Any = None


@triton.jit
def _activated(u, ACTIVATION: tl.constexpr):
    if ACTIVATION == RELU:
        u = tl.where(u < 0.0, 0.0, u)
    elif ACTIVATION == RELU6:
        u = clip(u, 0.0, 6.0)
    return u


@triton.jit
def _load(tensor, at, inside):
    return tl.load(tensor + at, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def store(tensor, at, value, inside):
    """Store in the tensor's own dtype."""
    tl.store(tensor + at, value.to(tensor.dtype.element_ty), mask=inside)


@triton.jit
def _normalized(e, norm, channel, channels, at, inside):
    """Return the centred x, its factor, and what the activation is applied to."""
    centred, factor, u = normalize(_load(e.x, at, inside), norm, channel, channels)
    if e.residual is not None:
        u += _load(e.residual, at, inside)
    return centred, factor, u


@triton.jit
def forward_tile(
    e, norm, q, channel, channels, at, inside,
    ACTIVATION: tl.constexpr, METHOD: tl.constexpr, SLOT: tl.constexpr,
):  # fmt: skip
    """Normalize, add, activate and quantize; pack the codes, in SLOT bits each."""
    _, _, u = _normalized(e, norm, channel, channels, at, inside)
    t = _activated(u, ACTIVATION)
    if e.activation is not None:
        store(e.activation, at, t, inside)
    y = quantized(t, q, METHOD).to(e.y.dtype.element_ty)
    tl.store(e.y + at, y, mask=inside)
    if e.codes is not None:
        store_tile_mask(e.codes, quantized_codes(y, q, METHOD), at, inside, SLOT)


@triton.jit
def gradient_tile(
    e, norm, q, channel, channels, at, inside,
    ACTIVATION: tl.constexpr, METHOD: tl.constexpr, SIGNED: tl.constexpr,
):  # fmt: skip
    """Return the centred x, its factor, du, and the terms of the quantizer's gradients."""
    centred, factor, u = _normalized(e, norm, channel, channels, at, inside)
    g = tl.zeros_like(u)
    if e.grad is not None:
        g = _load(e.grad, at, inside)
    dt, first, second = quantizer_gradient(g, _activated(u, ACTIVATION), q, METHOD, SIGNED)
    if e.grad_activation is not None:
        dt += _load(e.grad_activation, at, inside)
    if ACTIVATION == RELU:
        dt = tl.where(u <= 0.0, 0.0, dt)
    elif ACTIVATION == RELU6:
        dt = tl.where((u <= 0.0) | (u >= 6.0), 0.0, dt)
    return centred, factor, dt, first, second


@triton.jit
def sum_inside(terms, inside):
    """Return the sum over a tile."""
    return tl.sum(tl.sum(tl.where(inside, terms, 0.0), 1), 0)


@triton.jit
def backward_tile(
    e, norm, q, pulls, channel, channels, at, inside,
    ACTIVATION: tl.constexpr, METHOD: tl.constexpr,
):  # fmt: skip
    """Store the gradients of the elements ``at``."""
    centred, factor, du, _, _ = gradient_tile(
        e, norm, q, channel, channels, at, inside, ACTIVATION, METHOD, False
    )
    if e.dresidual is not None:
        store(e.dresidual, at, du, inside)
    if pulls is not None:
        du = du - tl.load(pulls + channel) - centred * tl.load(pulls + channels + channel)
    store(e.dx, at, factor * du, inside)
