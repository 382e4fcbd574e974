"""EWGS by Triton."""

import torch
from torch import Tensor

from .._layout import dense, in_strides_of
from ._launch import implement, kernels, launch


@implement
def ewgs_forward(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        launch(x, kernels("ewgs").ewgs_forward, x, lower.float(), upper.float(), y, bits)
    return y


@implement
def ewgs_backward(
    grad: Tensor,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    bits: int,
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    x = dense(x)
    grad, dx = in_strides_of(grad, x), torch.empty_like(x)
    dlower, dupper = (torch.zeros_like(bound, dtype=torch.float32) for bound in (lower, upper))
    if x.numel():
        scale = None if delta_tensor is None else delta_tensor.float()
        arguments = grad, x, lower.float(), upper.float(), dx, dlower, dupper, bits, delta, scale
        launch(x, kernels("ewgs").ewgs_backward, *arguments)
    return dx, dlower, dupper
