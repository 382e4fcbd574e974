"""The Triton backend of ``augment``.

A row out of range stops the kernel by an assertion, as it stops the native CUDA kernel.
"""

from typing import Any

import torch
from torch import Tensor

from ._launch import implement, kernels, launch


@implement
def augment(*arguments: Any) -> Tensor:
    """Follow a plan; arguments as the schema has them."""
    *tensors, dtype, channels_last = arguments
    tensors = [None if t is None else t.contiguous() for t in tensors]
    plan, (share, erase, partner, box, weight, values) = tuple(tensors[:9]), tensors[9:]
    pixels, index = plan[:2]
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
