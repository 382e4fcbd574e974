"""What the raw ops demand of their arguments: ``csrc/common``'s checks, for the other backends.

A direct call with what does not fit is refused before anything is read. Values are looked at only
where that waits for no device: on a CPU, by the reference.
"""

from . import bn_act_quant, plan, quantizers, rows
from ._arguments import FLOATS, LARGEST_NUMBER, number
from ._registry import CHECKS, checked

__all__ = [
    "CHECKS",
    "FLOATS",
    "LARGEST_NUMBER",
    "bn_act_quant",
    "checked",
    "number",
    "plan",
    "quantizers",
    "rows",
]
