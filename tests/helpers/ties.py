"""Images on which a student's outputs cannot depend on rounding: no activation lies near a tie."""

import torch
from torch import Tensor, nn

from daqakd.quant.base import ActivationQuantizer


def far_from_ties(student: nn.Module, images: Tensor, distance: float = 3e-4) -> Tensor:
    """Return for each image whether all its activations lie this many steps from a boundary.

    Computed in float64, so changes the student's dtype.
    """
    far = torch.ones(len(images), dtype=torch.bool)

    def look(quantizer: ActivationQuantizer, args: tuple[Tensor], y: Tensor) -> None:
        nonlocal far
        affine = quantizer.affine()
        assert affine is not None
        x = args[0] if affine.shift is None else args[0] - affine.shift
        codes = (x / affine.step).clamp(affine.lowest - 0.25, affine.highest + 0.25)
        off = (codes - codes.floor() - 0.5).abs().flatten(1)
        far &= off.amin(1) > distance

    found = [m for m in student.double().modules() if isinstance(m, ActivationQuantizer)]
    hooks = [quantizer.register_forward_hook(look) for quantizer in found]
    with torch.no_grad():
        student(images.double())
    for hook in hooks:
        hook.remove()
    return far
