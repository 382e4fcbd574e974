"""``calibrate``: find signedness and starting values of the activation quantizers."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from .base import ActivationQuantizer


def _inputs(batch: Any) -> Tensor:
    """Return the images of a batch that may come with labels."""
    return batch[0] if isinstance(batch, Sequence) else batch


def _pass(student: nn.Module, quantizers: list[ActivationQuantizer], phase: str, x: Any) -> None:
    for quantizer in quantizers:
        quantizer.enter(phase)
    for images in x:
        student(images)


@torch.no_grad()
def calibrate(student: nn.Module, batches: Tensor | Iterable[Any]) -> nn.Module:
    """Set signedness and starting parameters of every activation quantizer, in place.

    Two passes in eval mode: the first, in full precision, finds which inputs are ever negative;
    the second starts the parameters layer by layer, so that later layers see quantized inputs.
    Weights and BatchNorm buffers stay as they are. Reads the device back once. Under
    ``torch.distributed`` the statistics are averaged, so every rank gets the same result.

    Args:
        student: what :func:`quantize` returned.
        batches: one batch ``[B, ...]``, or an iterable of batches or (batch, labels) pairs on the
            student's device.

    Returns:
        The student.

    Raises:
        InputError: there is no batch, or a quantizer never saw data.
    """
    quantizers = [m for m in student.modules() if isinstance(m, ActivationQuantizer)]
    images = [batches] if isinstance(batches, Tensor) else [_inputs(b) for b in batches]
    if not images:
        raise InputError("batches: empty; calibration needs at least one batch")
    if not quantizers:
        return student
    modes = [(m, m.training) for m in student.modules()]
    student.eval()
    try:
        _pass(student, quantizers, "observe", images)
        _set_signs(quantizers)
        _pass(student, quantizers, "start", images)
    finally:
        for quantizer in quantizers:
            quantizer.enter(None)
        for module, training in modes:
            module.training = training
    return student


def _set_signs(quantizers: list[ActivationQuantizer]) -> None:
    for quantizer in quantizers:
        if quantizer.statistics.minimum is None:
            raise InputError(
                f"{quantizer.name}: saw no data during calibration; exclude= the layer if the"
                " model never uses it"
            )
    smallest = torch.stack([q.statistics.smallest() for q in quantizers])
    for quantizer, negative in zip(quantizers, (smallest < 0).tolist(), strict=True):
        if negative and quantizer.bits == 1 and quantizer.method != "ewgs":
            raise InputError(
                f"{quantizer.name}: its input is negative at times, and 1 bit has no signed form;"
                " use overrides= with 2 bits or more, or method='ewgs'"
            )
        quantizer.signed.fill_(negative)
        quantizer.calibrated.fill_(True)
        quantizer.is_signed, quantizer.is_calibrated = negative, True
