"""The integer codes of a quantizer, and how its values follow from them."""

from typing import NamedTuple

from .._ops import METHOD_CODES


class CodeRange(NamedTuple):
    """A value is ``code * step / levels``, where the step is a parameter's ``parts``-th part.

    A method has a step or levels; the other is 1 and changes nothing.
    """

    lowest: int
    highest: int
    parts: int
    levels: int


def code_range(method: int, bits: int, signed: bool) -> CodeRange:
    """Return the codes of a method by its number in ``METHOD_CODES``."""
    highest = 2 ** (bits - 1) - 1 if signed else 2**bits - 1
    lowest = -highest if signed else 0
    if method == METHOD_CODES["lsq"]:
        return CodeRange(lowest - signed, highest, 1, 1)
    if method == METHOD_CODES["pact"]:
        return CodeRange(lowest, highest, highest, 1)
    return CodeRange(lowest, highest, 1, highest)
