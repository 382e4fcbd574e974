"""LSQ by Triton."""

import torch
from torch import Tensor

from .._layout import dense, in_strides_of, memory_view
from ._launch import implement, kernels, launch


@implement
def lsq_forward(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        launch(x, kernels("lsq").lsq_forward, x, steps, y, view, qmin, qmax)
    return y


@implement
def lsq_backward(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    ste: int,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    x = dense(x)
    grad = in_strides_of(grad, x)
    dx, ds = torch.empty_like(x), torch.zeros_like(step, dtype=torch.float32)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        arguments = grad, x, steps, dx, ds, view, qmin, qmax, ste, grad_scale
        launch(x, kernels("lsq").lsq_backward, *arguments)
    return dx, ds
