"""A quantizer of values by its method, one parameter for all; float32."""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from ._dorefa import dorefa_activation_value
from ._maths import at_least_smallest
from .codes import codes_of
from .ewgs import ewgs_gradient, ewgs_value
from .lsq import lsq_gradient, lsq_value, pass_interval
from .pact import pact_codes, pact_gradient, pact_value

UNQUANTIZED, LSQ, PACT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)  # codes of methods
DOREFA, EWGS = tl.constexpr(3), tl.constexpr(4)


class Quantizer(NamedTuple):
    """What a launch knows of a quantizer besides its method."""

    parameter: Any  # []: the step, alpha, or the lower end; None where there is none
    upper: Any  # [], or None
    delta_tensor: Any  # [], or None: then delta
    lowest: float  # codes
    highest: float
    pass_low: float  # LSQ's gradient passes from here
    pass_high: float
    delta: float


def quantizer(
    method: int,
    parameter: Any,
    upper: Any,
    bits: int,
    signed: bool,
    ste: int = 0,
    delta: float = 0.0,
    delta_tensor: Any = None,
) -> Quantizer:
    """Return what a launch takes; parameters are float32."""
    highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    lowest = -highest - (method == LSQ.value) if signed else 0
    passing = pass_interval(lowest, highest, ste)
    tensors = parameter, upper, delta_tensor
    return Quantizer(*tensors, float(lowest), float(highest), *passing, delta)


@triton.jit
def quantized(t, q, METHOD: tl.constexpr):
    """Return t quantized."""
    if METHOD == LSQ:
        t = lsq_value(t, at_least_smallest(tl.load(q.parameter)), q.lowest, q.highest)
    elif METHOD == PACT:
        t = pact_value(t, at_least_smallest(tl.load(q.parameter)), q.lowest, q.highest)
    elif METHOD == DOREFA:
        t = dorefa_activation_value(t, tl.where(q.lowest < 0.0, -1.0, 0.0), q.highest)
    elif METHOD == EWGS:
        t = ewgs_value(t, tl.load(q.parameter), tl.load(q.upper), q.highest)
    return t


@triton.jit
def quantized_codes(y, q, METHOD: tl.constexpr):
    """Return the codes of quantized values in the dtype they are stored in, from the lowest on."""
    step, levels = 1.0, 1.0
    if METHOD == LSQ:
        step = at_least_smallest(tl.load(q.parameter))
    elif METHOD == PACT:
        step = tl.div_rn(at_least_smallest(tl.load(q.parameter)), q.highest)
    else:
        levels = q.highest
    return codes_of(y, step, q.lowest, q.highest, levels)


@triton.jit
def quantizer_gradient(g, t, q, METHOD: tl.constexpr, SIGNED: tl.constexpr):
    """Return dt, and each element's terms of both parameters' gradients, where they are."""
    dt, first, second = g, g, g
    if METHOD == LSQ:
        step = at_least_smallest(tl.load(q.parameter))
        dt, first = lsq_gradient(g, t, step, q.lowest, q.highest, q.pass_low, q.pass_high)
    elif METHOD == PACT:
        level = at_least_smallest(tl.load(q.parameter))
        dt, first = pact_gradient(g, pact_codes(t, level, q.lowest), SIGNED)
    elif METHOD == DOREFA:
        low = tl.where(q.lowest < 0.0, -1.0, 0.0)
        dt = tl.where((t >= low) & (t <= 1.0), g, 0.0)
    elif METHOD == EWGS:
        delta = q.delta
        if q.delta_tensor is not None:
            delta = tl.load(q.delta_tensor)
        ends = tl.load(q.parameter), tl.load(q.upper)
        dt, first, second = ewgs_gradient(g, t, ends[0], ends[1], q.highest, delta)
    return dt, first, second
