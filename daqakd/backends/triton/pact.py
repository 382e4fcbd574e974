"""PACT by Triton."""

import torch
from torch import Tensor

from .._layout import dense, memory_view
from ._launch import implement, kernels, launch, new_mask


@implement
def pact_forward(
    x: Tensor, alpha: Tensor, bits: int, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    x = dense(x)
    y, mask = torch.empty_like(x), new_mask(x, 4)
    if x.numel():
        view, levels = memory_view(x, axis), alpha.float().contiguous()
        launch(x, kernels("pact").pact_forward, x, levels, y, mask, view, bits, signed)
    return y, mask


@implement
def pact_backward(
    grad: Tensor, mask: Tensor, alpha: Tensor, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    grad = dense(grad)
    dx, dalpha = torch.empty_like(grad), torch.zeros_like(alpha, dtype=torch.float32)
    if grad.numel():
        arguments = grad, mask, dx, dalpha, memory_view(grad, axis), signed
        launch(grad, kernels("pact").pact_backward, *arguments)
    return dx, dalpha
