"""Formulas that several kernels share; the same operations in the same order as in csrc/common."""

import triton
import triton.language as tl

SMALLEST = tl.constexpr(2.0**-30)  # steps, clipping levels and ranges are at least this
MAGIC = tl.constexpr(12582912.0)  # 1.5 * 2^23: adding and taking it away rounds half to even
LN2_HIGH = tl.constexpr(355 / 512)  # so short that its multiples are exact
LN2_LOW = tl.constexpr(0.69314718055994531 - 355 / 512)
LOG2_E = tl.constexpr(1.44269504)
INTEGERS = tl.constexpr(6755399441055744.0)  # 1.5 * 2^52: its neighbours are integers
LN2_HIGH_64 = tl.constexpr(762123384785 / 2**40)
LN2_LOW_64 = tl.constexpr(7.37100256516779890e-13)
LOG2_E_64 = tl.constexpr(1.44269504088896340736)


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


@triton.jit
def exp64(x):
    """Return e^x of float64 ``x <= 0``, 0 below -708; NaN stays NaN."""
    shifted = x * LOG2_E_64 + INTEGERS
    n = shifted - INTEGERS
    r = (x - n * LN2_HIGH_64) - n * LN2_LOW_64
    p = 1 / 6227020800 * r + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    scale = ((shifted.to(tl.int64, bitcast=True) + 1023) << 52).to(tl.float64, bitcast=True)
    return tl.where(x < -708.0, 0.0, scale * (1.0 + (r + r * r * p)))


@triton.jit
def log64(v):
    """Return ln(v) of float64 as n * ln(2) + 2 * atanh(s), v = 2^n * m, s = (m - 1) / (m + 1)."""
    subnormal = v < 2.0**-1022
    bits = tl.where(subnormal, v * 2.0**54, v).to(tl.int64, bitcast=True)
    whole = ((bits & (2**52 - 1)) | (1023 << 52)).to(tl.float64, bitcast=True)
    large = whole > 1.41421356237309505
    m = tl.where(large, 0.5 * whole, whole)
    exponent = (bits >> 52) - 1023 + large.to(tl.int64) - tl.where(subnormal, 54, 0)
    n = exponent.to(tl.float64)
    s = (m - 1.0) / (m + 1.0)
    z = s * s
    p = 1 / 21 * z + 1 / 19
    p = p * z + 1 / 17
    p = p * z + 1 / 15
    p = p * z + 1 / 13
    p = p * z + 1 / 11
    p = p * z + 1 / 9
    p = p * z + 1 / 7
    p = p * z + 1 / 5
    p = p * z + 1 / 3
    result = n * LN2_HIGH_64 + (n * LN2_LOW_64 + (2.0 * s + 2.0 * s * z * p))
    special = tl.where(v == 0, float("-inf"), tl.where(v > 0, v, float("nan")))
    return tl.where((v > 0) & (v < float("inf")), result, special)


@triton.jit
def log1p64(v):
    """Return ln(1 + v) of float64; the second term is what 1 + v lost."""
    u = 1.0 + v
    lost = (v - (u - 1.0)) / u
    return tl.where((u > 0) & (u < float("inf")), log64(u) + lost, log64(u))
