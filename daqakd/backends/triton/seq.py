"""SEQ by Triton."""

import torch
from torch import Tensor

from .._layout import dense, in_strides_of, memory_view
from ._launch import implement, kernels, launch


@implement
def seq_forward(x: Tensor, step: Tensor, levels: int, axis: int | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        launch(x, kernels("seq").seq_forward, x, steps, y, view, levels)
    return y


@implement
def seq_backward(
    grad: Tensor, x: Tensor, step: Tensor, levels: int, axis: int | None, grad_scale: float
) -> tuple[Tensor, Tensor]:
    x = dense(x)
    grad = in_strides_of(grad, x)
    dx, ds = torch.empty_like(x), torch.zeros_like(step, dtype=torch.float32)
    if x.numel():
        view, steps = memory_view(x, axis), step.float().contiguous()
        arguments = grad, x, steps, dx, ds, view, levels, grad_scale
        launch(x, kernels("seq").seq_backward, *arguments)
    return dx, ds
