"""Images on which a student's outputs cannot depend on rounding: no activation lies near a tie."""

import torch
from torch import Tensor, nn

from daqakd.quant.base import ActivationQuantizer


def far_from_ties(student: nn.Module, images: Tensor, share: float = 2e-6) -> Tensor:
    """Return for each image whether all its activations lie so far from every boundary.

    Args:
        student: in float64 afterwards.
        images: what it takes; numbers or indices.
        share: of the range of codes, which float32 knows a position to.
    """
    far = torch.ones(len(images), dtype=torch.bool)

    def look(quantizer: ActivationQuantizer, args: tuple[Tensor], y: Tensor) -> None:
        nonlocal far
        affine = quantizer.affine()
        assert affine is not None
        x = args[0] if affine.shift is None else args[0] - affine.shift
        codes = (x / affine.step).clamp(affine.lowest - 0.25, affine.highest + 0.25)
        off = (codes - codes.floor() - 0.5).abs().flatten(1)
        far &= off.amin(1) > share * (affine.highest - affine.lowest)

    found = [m for m in student.double().modules() if isinstance(m, ActivationQuantizer)]
    hooks = [quantizer.register_forward_hook(look) for quantizer in found]
    with torch.no_grad():
        student(images.double() if images.is_floating_point() else images)
    for hook in hooks:
        hook.remove()
    return far
