"""What a batch is trained with: both models' passes and the loss."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..augment import Batch
from ..backends.table import LAYOUTS
from ..functional import kd_loss
from ..models import logits_of
from .config import PRECISIONS, TrainConfig
from .loop import LossFunction


def layout_of(device: torch.device) -> torch.memory_format:
    """Return the faster layout for training on a device."""
    layout, _ = LAYOUTS.get(device.type, LAYOUTS["cpu"])
    return layout


def images_of(batch: Batch) -> Tensor:
    """Return a batch's images in the layout of their device."""
    return batch.images.contiguous(memory_format=layout_of(batch.images.device))


@contextmanager
def laid_out(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model in the memory format that is faster, and after it as others save it."""
    model.to(memory_format=layout_of(device))
    try:
        yield
    finally:
        model.to(memory_format=torch.contiguous_format)


def precision(device: torch.device, config: TrainConfig) -> torch.autocast:
    """Return the context of both models' passes: weights and the quantizers' maths stay float32."""
    dtype = PRECISIONS[config.precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def said_of_precision(device: torch.device, config: TrainConfig) -> str | None:
    """Return what to know before a run in bf16 on a CPU that has no instructions for it."""
    able: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch has none
    if config.precision == "fp32" or device.type != "cpu" or able.get("architecture") != "x86_64":
        return None
    if able.get("avx512_bf16") or able.get("amx_bf16"):
        return None
    return (
        "precision: this CPU has no bfloat16 instructions, so bf16 is many times slower than fp32"
    )


Further = Callable[[Tensor, Tensor, Batch], Tensor]


def distillation(
    student: nn.Module,
    teacher: nn.Module,
    classes: int,
    config: TrainConfig,
    further: Further | None = None,
) -> LossFunction:
    """Return ``ce_weight * CE + kd_weight * T^2 * KL`` of a batch, its parts and the logits.

    ``further`` takes both models' logits and the batch, and returns what is added. The options may
    leave out the teacher, or the labels.
    """
    if config.no_teacher:
        return supervised(student, classes, config)

    def losses(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images = images_of(batch)
        with precision(images.device, config):
            with torch.no_grad():
                wanted = logits_of(teacher(images))
            logits = logits_of(student(images))
        loss, ce, kl = kd_loss(
            logits,
            wanted,
            None if config.kd_only else batch.targets(classes),
            temperature=config.temperature,
            ce_weight=config.ce_weight,
            kd_weight=config.kd_weight,
            label_smoothing=config.label_smoothing,
            return_parts=True,
        )
        if further is not None:
            loss = loss + further(logits, wanted, batch)
        return loss, ce, kl, logits

    return losses


def supervised(model: nn.Module, classes: int, config: TrainConfig) -> LossFunction:
    """Return the cross-entropy of a batch, the same as its part, and the logits."""

    def losses(batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        images = images_of(batch)
        with precision(images.device, config):
            logits = logits_of(model(images))
        loss = nn.functional.cross_entropy(
            logits.to(torch.promote_types(logits.dtype, torch.float32)),
            batch.targets(classes),
            label_smoothing=config.label_smoothing,
        )
        return loss, loss, torch.zeros_like(loss), logits

    return losses
