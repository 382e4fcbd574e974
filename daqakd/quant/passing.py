"""Students that are not quantized yet, or not yet at their own widths."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .base import Quantizer
from .calibration import calibrate
from .layers import QuantLayer
from .operands import QuantInput


def pass_through(student: nn.Module, wanted: bool) -> None:
    """Let every quantized layer compute at full precision, or quantize again.

    What calls the layers sees it in the next pass: the weight cache and fused chains leave passing
    layers alone. It is no part of a ``state_dict``.
    """
    for module in student.modules():
        if isinstance(module, QuantInput):
            module.passing = wanted


def start_anew(student: nn.Module, batches: Tensor | Iterable[Any]) -> None:
    """Start all quantizers from the weights as they are now, and from batches: :func:`calibrate`.

    Raises:
        InputError: as ``calibrate``.
    """
    for module in student.modules():
        if isinstance(module, QuantLayer):
            module.restart_weights()
    calibrate(student, batches)


def uniform_quantizers(student: nn.Module) -> list[Quantizer]:
    """Return the quantizers whose width is the student's own, not that of a policy or override."""
    return [m for m in student.modules() if isinstance(m, Quantizer) and m.uniform]
