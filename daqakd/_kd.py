"""The settings of ``kd_loss``, as its two ops take them."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class KDSettings(NamedTuple):
    """What the ops take after logits and labels, in their order; a tensor replaces its number."""

    temperature: float
    ce_weight: float
    kd_weight: float
    temperature_tensor: Tensor | None  # []
    ce_weight_tensor: Tensor | None  # []
    kd_weight_tensor: Tensor | None  # []
    label_smoothing: float
    ignore_index: int
    reduction: int  # of REDUCTION_CODES

    @property
    def numbers(self) -> tuple[float, ...]:
        """Temperature, weight of the cross-entropy, weight of the KL."""
        return self[:3]

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """The tensors that replace them, None where there is none."""
        return self[3:6]

    def values(self, dtype: torch.dtype) -> list[float | Tensor]:
        """Return temperature, ``ce_weight`` and ``kd_weight``, tensors among them in ``dtype``."""
        pairs = zip(self.numbers, self.tensors, strict=True)
        return [
            number if tensor is None else tensor.to(dtype).reshape(()) for number, tensor in pairs
        ]

    def replaced(self, *tensors: Tensor | None) -> "KDSettings":
        """Return the settings with other tensors."""
        arguments: tuple[Any, ...] = (*self.numbers, *tensors, *self[6:])
        return KDSettings(*arguments)
