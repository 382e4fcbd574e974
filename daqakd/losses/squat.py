"""SQuaT: the teacher's features, quantized as the student's are (AISTATS 2026)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from .._errors import InputError
from ..augment import Batch
from ..models.taps import module_at, split_tap, taps_of
from ..quant import QuantConv2d
from ..quant.base import ActivationQuantizer
from .base import DistillationLoss, Maps, Setup, added
from .checks import check_pairs, check_same_shape


class SQuaT(DistillationLoss):
    """Mean squared difference of quantized features: both by the student's quantizer.

    The student's are the quantized input of the last quantized convolution in a module, the
    teacher's the input of its own convolution of that name, quantized as the student's is now. The
    gradient is that of the student's features; the teacher's are a constant, the quantizer's
    parameters in them, too. Formula and place are those of the authors' code (SQuaT,
    ``distill_loss`` L2). Summed over the modules.

    Args:
        taps: modules whose last quantized convolution is meant; None for the one that gives a named
            model's last map.
    """

    def __init__(self, *, taps: Sequence[str] | None = None) -> None:
        super().__init__(taps=taps)
        self.quantizers: tuple[ActivationQuantizer, ...] = ()  # the student's: no submodules here

    def taps_of(self, student: nn.Module, teacher: nn.Module) -> tuple[list[str], list[str]]:
        """Return the student's quantizers, and the inputs of the teacher's convolutions.

        Raises:
            InputError: the student has no quantized convolution there, or the teacher none of its
                name.
        """
        names = self._convolutions(student)
        convolutions = {n for n, m in teacher.named_modules() if isinstance(m, nn.Conv2d)}
        for name in names:
            if name not in convolutions:
                raise InputError(
                    f"SQuaT: the teacher has no convolution {name!r}, whose input would be"
                    " quantized as the student's; it needs a teacher of the student's architecture"
                )
        return [f"{name}.act_quantizer" for name in names], [f"{name}:input" for name in names]

    def _convolutions(self, student: nn.Module) -> list[str]:
        return [_last_quantized(student, name) for name in self.taps or [taps_of(student)[-2]]]

    def prepare(self, setup: Setup) -> None:
        """Find the student's quantizers; require maps of one shape."""
        check_pairs(self, setup, 4)
        check_same_shape(self, setup.student, setup.teacher)
        names = self._convolutions(setup.student_model)
        self.quantizers = tuple(
            setup.student_model.get_submodule(f"{name}.act_quantizer")  # type: ignore[misc]
            for name in names
        )

    def forward(self, student: Maps, teacher: Maps, batch: Batch) -> Tensor:
        """Return the loss of a batch, ``[]``."""
        losses = []
        for quantizer, s, t in zip(self.quantizers, student, teacher, strict=True):
            with torch.no_grad():
                wanted = quantizer.forward(t)  # past the hooks that read the student's
            losses.append(mse_loss(s, wanted))
        return added(losses)


def _last_quantized(student: nn.Module, tap: str) -> str:
    """Return the name of the last convolution in a tap's module whose input is quantized."""
    place = split_tap(tap)[0]
    names: list[str] = [
        name
        for name, module in module_at(student, tap).named_modules(prefix=place)
        if isinstance(module, QuantConv2d) and module.act_quantizer is not None
    ]
    if not names:
        raise InputError(
            f"SQuaT: the student's {place!r} has no convolution whose input is quantized; name a"
            " module that has one by taps, or quantize activations"
        )
    return names[-1]
