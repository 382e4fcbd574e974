"""DoReFa's quantizers by Triton."""

import torch
from torch import Tensor

from .._layout import dense, in_strides_of
from ._launch import implement, kernels, launch, new_mask


@implement
def dorefa_activation_forward(x: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    x = dense(x)
    y, mask = torch.empty_like(x), new_mask(x, 8)
    if x.numel():
        launch(x, kernels("dorefa").dorefa_activation_forward, x, y, mask, bits, signed)
    return y, mask


@implement
def dorefa_activation_backward(grad: Tensor, mask: Tensor) -> Tensor:
    grad = dense(grad)
    dx = torch.empty_like(grad)
    if grad.numel():
        launch(grad, kernels("dorefa").dorefa_activation_backward, grad, mask, dx)
    return dx


@implement
def dorefa_weight_forward(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    w = dense(w)
    y, scale = torch.empty_like(w), torch.zeros((), dtype=torch.float32, device=w.device)
    if w.numel():
        launch(w, kernels("dorefa").dorefa_weight_forward, w, y, scale, bits)
    return y, scale


@implement
def dorefa_weight_backward(
    grad: Tensor, w: Tensor, maximum: Tensor, bits: int, detach_max: bool
) -> Tensor:
    w = dense(w)
    grad, dw = in_strides_of(grad, w), torch.empty_like(w)
    if w.numel():
        arguments = grad, w, maximum.float(), dw, bits, detach_max
        launch(w, kernels("dorefa").dorefa_weight_backward, *arguments)
    return dw
