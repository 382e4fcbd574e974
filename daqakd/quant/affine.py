"""Quantizers as integers: the codes they round to, and the line from codes to values.

Every quantizer is one once it is trained: what files for other runtimes are made of.
"""

from typing import NamedTuple

from torch import Tensor


class WeightAffine(NamedTuple):
    """Weights as ``scale * (code - offset)``, with codes in [0, 2^bits)."""

    scale: Tensor
    """float32, ``[1]`` or one per output channel."""
    offset: float
    """The code of 0: a whole number, or one and a half where 0 is no level."""


class ActivationAffine(NamedTuple):
    """Activations as ``size * code + base``, with the code of x ``round((x - shift) / step)``.

    Codes are clipped to ``lowest`` and ``highest``.
    """

    step: Tensor
    """float32 ``[1]``, as is all that follows."""
    size: Tensor
    """Of a step in the output; ``step`` but for EWGS, whose output is [0, 1]."""
    lowest: int
    highest: int
    shift: Tensor | None = None
    base: Tensor | None = None
