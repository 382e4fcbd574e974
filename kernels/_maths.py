"""Formulas that several kernels share; the same operations in the same order as in csrc/common."""

import triton
import triton.language as tl

SMALLEST = tl.constexpr(2.0**-30)  # steps, clipping levels and ranges are at least this
MAGIC = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding and taking it away rounds half to even
LN2_HIGH = tl.constexpr(355 / 512)  # so short that its multiples are exact
LN2_LOW = tl.constexpr(0.69314718055994531 - 355 / 512)
LOG2_E = tl.constexpr(1.44269504)


@triton.jit
def at_least_smallest(parameter):
    """Keep a parameter positive; NaN stays NaN."""
    return tl.where(parameter < SMALLEST, SMALLEST, parameter)


@triton.jit
def clip(v, low, high):
    """Clip ``v``; NaN stays NaN."""
    return tl.where(v < low, low, tl.where(v > high, high, v))


@triton.jit
def half_even(v):
    """Round to the nearest integer, ties to even, for ``|v| < 2^22``."""
    return (v + MAGIC) - MAGIC


@triton.jit
def tanh(x):
    """Return tanh of float32 as e / (e + 2), e = exp(2|x|) - 1 by halves of ln(2)."""
    magnitude = tl.abs(x)
    y = tl.where(magnitude > 10.0, 20.0, 2.0 * magnitude)
    shifted = y * LOG2_E + MAGIC
    n = shifted - MAGIC
    r = (y - n * LN2_HIGH) - n * LN2_LOW
    p = 1 / 5040 * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    scale = ((shifted.to(tl.int32, bitcast=True) + 127) << 23).to(tl.float32, bitcast=True)
    e = scale * (p * (r * r) + r) + (scale - 1.0)
    t = tl.div_rn(e, e + 2.0)
    return tl.where(x < 0, -t, t)
