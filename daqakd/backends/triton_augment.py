"""The Triton backend of ``augment``.

A row out of range stops the kernel by an assertion, as it stops the native CUDA kernel.
"""

import torch
from torch import Tensor

from .triton import kernels, launch, register


def _augment(
    pixels: Tensor,
    index: Tensor,
    crop: Tensor,
    flip: Tensor,
    setting: Tensor,
    kind: Tensor,
    lut: Tensor,
    integer: Tensor,
    real: Tensor,
    share: Tensor | None,
    erase: Tensor | None,
    partner: Tensor | None,
    box: Tensor | None,
    weight: Tensor | None,
    values: Tensor | None,
    dtype: torch.dtype,
    channels_last: bool,
) -> Tensor:
    tensors = pixels, index, crop, flip, setting, kind, lut, integer, real
    plan = tuple(t.contiguous() for t in tensors)
    extra = (share, erase, partner, box, weight, values)
    share, erase, partner, box, weight, values = (
        None if t is None else t.contiguous() for t in extra
    )
    order = torch.channels_last if channels_last else torch.contiguous_format
    shape = (len(index if partner is None else partner), *pixels.shape[1:])
    y = torch.empty(shape, dtype=dtype, device=pixels.device, memory_format=order)
    if not y.numel():
        return y
    rows = y if partner is None else pixels.new_empty((len(index), *pixels.shape[1:]))
    through = values if partner is None else None
    launch(pixels, kernels("augment").augment_rows, plan, share, erase, through, rows)
    if partner is not None:
        mixed = rows, partner, box, weight, values, y
        launch(pixels, kernels("augment").augment_mix, *mixed)
    return y


register({"augment": _augment})
