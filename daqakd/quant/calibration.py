"""``calibrate``: find signedness and starting values of the activation quantizers."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._errors import InputError
from .base import ActivationQuantizer
from .weights import DoReFaWeight


def _inputs(batch: Tensor | Sequence[Tensor]) -> Tensor:
    """Return the images of a batch that may come with labels."""
    return batch[0] if isinstance(batch, Sequence) else batch


def _normalise_by_batch(student: nn.Module, images: list[Tensor]) -> list[_BatchNorm]:
    """Let BatchNorm use batch statistics, unrecorded, if there are DoReFa weights; return which.

    Those weights lie in [-1, 1] whatever their magnitude was: by the running statistics of the
    full-precision model, activations and starting values would grow from layer to layer.
    """
    weights = [m for m in student.modules() if isinstance(m, DoReFaWeight)]
    if not weights or any(len(batch) == 1 for batch in images):  # one image has no statistics
        return []
    norms = [m for m in student.modules() if isinstance(m, _BatchNorm)]
    norms = [m for m in norms if m.track_running_stats]
    for norm in norms:
        norm.training, norm.track_running_stats = True, False
    return norms


def _pass(student: nn.Module, quantizers: list[ActivationQuantizer], phase: str, x: Any) -> None:
    for quantizer in quantizers:
        quantizer.enter(phase)
    for images in x:
        student(images)


@torch.no_grad()
def calibrate(student: nn.Module, batches: Tensor | Iterable[Any]) -> nn.Module:
    """Set signedness and starting parameters of every activation quantizer, in place.

    Two passes in eval mode: the first, in full precision, finds which inputs are ever negative;
    the second starts the parameters layer by layer, so that later layers see quantized inputs; with
    DoReFa weights and more than one image, BatchNorm then takes the batch's statistics. Weights and
    BatchNorm buffers stay as they are. Reads the device back once. Under ``torch.distributed`` the
    statistics are averaged, so every rank gets the same result.

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
    norms: list[_BatchNorm] = []
    try:
        _pass(student, quantizers, "observe", images)
        _set_signs(quantizers)
        norms = _normalise_by_batch(student, images)
        _pass(student, quantizers, "start", images)
    finally:
        for norm in norms:
            norm.track_running_stats = True
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
