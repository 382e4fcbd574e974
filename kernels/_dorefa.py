"""The formulas of DoReFa, for one tensor and for many; float32."""

import triton
import triton.language as tl

from ._maths import clip, half_even, tanh


@triton.jit
def dorefa_activation_value(x, low, levels):
    """Return the activation x quantized to [low, 1]."""
    return tl.div_rn(half_even(clip(x, low, 1.0) * levels), levels)


@triton.jit
def dorefa_sign(w):
    """Return the sign with sign(0) = +1; NaN stays NaN."""
    return tl.where(w < 0, -1.0, tl.where(w >= 0, 1.0, w))


@triton.jit
def wide_sum(terms):
    """Return the sum in fp64: the compiler chooses its order, which then hardly ever shows."""
    return tl.sum(terms.to(tl.float64), 0)


@triton.jit
def mean(total, count):
    """Return the float32 mean of ``count`` elements, at least 1, from their fp64 sum."""
    return (total / count).to(tl.float32)


@triton.jit
def dorefa_value(w, maximum, levels):
    """Return w quantized, given max|tanh(w)|."""
    # the tanh of zeros is 0: any other divisor gives them the code nearest 0
    unit = tl.div_rn(tanh(w), tl.where(maximum == 0.0, 1.0, 2.0 * maximum)) + 0.5
    return 2.0 * tl.div_rn(half_even(unit * levels), levels) - 1.0


@triton.jit
def dorefa_maximum_gradient(sum, count, maximum):
    """Return the maximum's gradient, divided among the ``count`` largest weights."""
    divisor = tl.where(maximum == 0.0, 1.0, maximum)
    return tl.div_rn(tl.div_rn(-sum, divisor * divisor), count)


@triton.jit
def dorefa_gradient(g, w, maximum, extra):
    """Return dw; the largest weights also get ``extra``, 0 when the maximum is detached."""
    t = tanh(w)
    slope = tl.div_rn(g, tl.where(maximum == 0.0, 1.0, maximum))
    slope += tl.where(tl.abs(t) == maximum, dorefa_sign(t) * extra, 0.0)
    return tl.where(maximum == 0.0, 0.0, slope * (1.0 - t * t))
