"""Batch norm, residual, activation and quantizer by Triton."""

from typing import Any

import torch
from torch import Tensor

from ..._ops import slot_bits
from .._layout import dense, in_strides_of, memory_view
from ._launch import implement, kernels, launch, new_mask
from .codes import codes_pack


def _float(parameter: Tensor | None) -> Tensor | None:
    return None if parameter is None else parameter.float().contiguous()


def _beside(given: Tensor | None, x: Tensor) -> Tensor | None:
    return None if given is None else in_strides_of(given, x)


@implement
def bn_act_quant_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    momentum_tensor: Tensor | None,
    eps: float,
    activation: int,
    method: int,
    parameter: Tensor | None,
    upper: Tensor | None,
    bits: int,
    signed: bool,
    with_activation: bool,
    with_codes: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    x = dense(x)
    y = torch.empty_like(x)
    t = torch.empty_like(x) if with_activation else x.new_empty(0)
    slot, none = slot_bits(bits), x.new_empty(0, dtype=torch.uint8)
    codes = new_mask(x, 8 // slot) if with_codes else none
    new = torch.empty if x.numel() else torch.zeros
    statistics = new(2, x.shape[1], dtype=torch.float32, device=x.device)
    if x.numel():
        of = kernels("bn_act_quant")
        view = memory_view(x, 1)
        in_pass = with_codes and of.can_pack(view, slot)
        kept = t if with_activation else None, codes if in_pass else None
        elements = of.Elements(x, _beside(residual, x), y, *kept)
        norm = of.Norm(statistics, _float(weight), _float(bias))
        running = of.Running(running_mean, running_var, _float(momentum_tensor), momentum)
        q = of.quantizer(method, _float(parameter), _float(upper), bits, signed)
        settings = view, training, eps, activation, method, slot if in_pass else 0
        launch(x, of.bn_act_quant_forward, elements, norm, running, q, *settings)
        if with_codes and not in_pass:  # programs would share bytes
            codes = codes_pack(y, parameter if upper is None else None, method, bits, signed)
    return y, t, statistics, codes


@implement
def bn_act_quant_backward(
    grad: Tensor | None,
    grad_activation: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    activation: int,
    method: int,
    parameter: Tensor | None,
    upper: Tensor | None,
    bits: int,
    signed: bool,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    ste, grad_scale, delta, delta_tensor, with_residual = rest
    x = dense(x)
    dx = torch.empty_like(x)
    dresidual = torch.empty_like(x) if with_residual else x.new_empty(0)
    new = torch.empty_like if x.numel() else torch.zeros_like
    dnorm = new(statistics)
    dparameter, dupper = (
        statistics.new_empty(0) if one is None else new(one, dtype=torch.float32)
        for one in (parameter, upper)
    )
    if x.numel():
        of = kernels("bn_act_quant")
        elements = of.Elements(
            x,
            _beside(residual, x),
            grad=_beside(grad, x),
            grad_activation=_beside(grad_activation, x),
            dx=dx,
            dresidual=dresidual if with_residual else None,
        )
        norm = of.Norm(statistics, _float(weight), _float(bias))
        ends = _float(parameter), _float(upper)
        q = of.quantizer(method, *ends, bits, signed, ste, delta, _float(delta_tensor))
        sums = None if parameter is None else dparameter, None if upper is None else dupper
        settings = memory_view(x, 1), training, activation, method, grad_scale
        launch(x, of.bn_act_quant_backward, elements, norm, q, dnorm, *sums, *settings)
    return dx, dresidual, dnorm, dparameter, dupper
