"""The Triton backend of the ``*_many`` ops."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._layout import dense, in_strides_of
from ._launch import implement, kernels, launch

Tensors = Sequence[Tensor]


def _floats(parameters: Tensors) -> list[Tensor]:
    return [parameter.float().contiguous() for parameter in parameters]


def _in_rows(x: Tensor, rows: int) -> Tensor:
    """Return the dense ``x`` with its rows one after the other in memory."""
    outermost = rows <= 1 or x.numel() == 0 or x.stride(0) * rows == x.numel()
    return x if outermost else x.contiguous()


def _like_each(tensors: Tensors, models: Tensors) -> list[Tensor]:
    return [in_strides_of(one, model) for one, model in zip(tensors, models, strict=True)]


@implement
def lsq_many_forward(
    x: Tensors, step: Tensors, qmin: Sequence[int], qmax: Sequence[int]
) -> list[Tensor]:
    models = [dense(one) for one in x]
    rows = [_in_rows(one, s.numel()) for one, s in zip(models, step, strict=True)]
    y = [torch.empty_like(one) for one in rows]
    run = kernels("lsq_many").lsq_many_forward
    launch(x[0], run, rows, _floats(step), y, qmin, qmax)
    return _like_each(y, models)


@implement
def lsq_many_backward(
    grad: Tensors,
    x: Tensors,
    step: Tensors,
    qmin: Sequence[int],
    qmax: Sequence[int],
    ste: int,
    grad_scale: Sequence[float],
) -> tuple[list[Tensor], list[Tensor]]:
    models = [dense(one) for one in x]
    rows = [_in_rows(one, s.numel()) for one, s in zip(models, step, strict=True)]
    dx = [torch.empty_like(one) for one in rows]
    ds = [torch.empty_like(s, dtype=torch.float32) for s in step]
    run = kernels("lsq_many").lsq_many_backward
    grads = _like_each(grad, rows)
    launch(x[0], run, grads, rows, _floats(step), dx, ds, qmin, qmax, ste, grad_scale)
    return _like_each(dx, models), ds


@implement
def dorefa_weight_many_forward(w: Tensors, bits: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    w = [dense(one) for one in w]
    y = [torch.empty_like(one) for one in w]
    maximum = torch.empty(len(w), dtype=torch.float32, device=w[0].device)
    run = kernels("dorefa_weight_many").dorefa_weight_many_forward
    launch(w[0], run, w, y, maximum, bits)
    return y, maximum


@implement
def dorefa_weight_many_backward(
    grad: Tensors, w: Tensors, maximum: Tensor, bits: Sequence[int], detach_max: bool
) -> list[Tensor]:
    w = [dense(one) for one in w]
    dw = [torch.empty_like(one) for one in w]
    run = kernels("dorefa_weight_many").dorefa_weight_many_backward
    launch(w[0], run, _like_each(grad, w), w, maximum.float(), dw, bits, detach_max)
    return dw


@implement
def ewgs_many_forward(
    x: Tensors, lower: Tensors, upper: Tensors, bits: Sequence[int]
) -> list[Tensor]:
    x = [dense(one) for one in x]
    y = [torch.empty_like(one) for one in x]
    launch(x[0], kernels("ewgs_many").ewgs_many_forward, x, _floats(lower), _floats(upper), y, bits)
    return y


@implement
def ewgs_many_backward(
    grad: Tensors,
    x: Tensors,
    lower: Tensors,
    upper: Tensors,
    bits: Sequence[int],
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    x = [dense(one) for one in x]
    dx = [torch.empty_like(one) for one in x]
    dlower = [torch.empty_like(bound, dtype=torch.float32) for bound in lower]
    dupper = [torch.empty_like(bound, dtype=torch.float32) for bound in upper]
    scale = None if delta_tensor is None else delta_tensor.float()
    tensors = _like_each(grad, x), x, _floats(lower), _floats(upper), dx, dlower, dupper
    launch(x[0], kernels("ewgs_many").ewgs_many_backward, *tensors, bits, delta, scale)
    return dx, dlower, dupper
