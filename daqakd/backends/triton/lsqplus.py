"""LSQ+ by Triton."""

import torch
from torch import Tensor

from .._layout import dense, in_strides_of
from ._launch import implement, kernels, launch


@implement
def lsqplus_forward(x: Tensor, step: Tensor, offset: Tensor, bits: int) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        launch(x, kernels("lsqplus").lsqplus_forward, x, step.float(), offset.float(), y, bits)
    return y


@implement
def lsqplus_backward(
    grad: Tensor, x: Tensor, step: Tensor, offset: Tensor, bits: int, grad_scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    x = dense(x)
    grad, dx = in_strides_of(grad, x), torch.empty_like(x)
    dstep, doffset = (torch.zeros_like(one, dtype=torch.float32) for one in (step, offset))
    if x.numel():
        arguments = grad, x, step.float(), offset.float(), dx, dstep, doffset, bits, grad_scale
        launch(x, kernels("lsqplus").lsqplus_backward, *arguments)
    return dx, dstep, doffset
