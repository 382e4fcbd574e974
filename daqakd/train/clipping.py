"""The share of activations that a student's quantizers clip."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..models import evaluating
from ..quant.base import ActivationQuantizer
from ..quant.grids import clipping_range


@torch.no_grad()
def clipped_shares(model: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the share of activations beyond the ends of each quantizer's levels, in eval mode.

    Quantizers that are not called have none: layers that do not run, or that share an input with
    an equal quantizer.

    Args:
        model: the student, calibrated; its training mode is restored.
        images: ``[B, 3, H, W]`` on its device.
    """
    counts: dict[str, Tensor] = {}  # [2]: clipped ones, all

    def watching(name: str) -> Callable[[Any, Any], None]:
        def watch(quantizer: ActivationQuantizer, args: Any) -> None:
            (x,) = args
            low, high = clipping_range(quantizer, x)
            clipped = ((x < low) | (x > high)).sum(dtype=torch.float64)
            found = torch.stack([clipped, torch.full_like(clipped, x.numel())])
            counts[name] = counts[name] + found if name in counts else found

        return watch

    quantizers = [(n, m) for n, m in model.named_modules() if isinstance(m, ActivationQuantizer)]
    handles = [m.register_forward_pre_hook(watching(name)) for name, m in quantizers]
    try:
        with evaluating(model):
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    if not counts:
        return {}
    found = torch.stack(list(counts.values())).tolist()
    return {name: part / whole for name, (part, whole) in zip(counts, found, strict=True)}
