"""The contract: every op's schema and shape function; one overload per backend.

An op is called through its overload, ``torch.ops.daqakd.<op>.<backend>``, never through the packet.
``axis=None`` means one parameter for the whole tensor. Sums and quantizer parameters' gradients are
float32, or float64 where the input is. Masks are packed in memory order of ``empty_like(x)``, low
bits first. ``kd_loss_forward`` returns the loss; the reduced CE and KL ``[2]``, without a
reduction ``[0]``; each row's CE and KL ``[B]``; and the gradient, for a mean the mean's times B.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

BACKENDS = ("reference", "triton", "native")
MANY = frozenset({"lsq_many", "dorefa_weight_many", "ewgs_many"})  # all weights in one launch
SMALLEST = 2.0**-30  # steps, clipping levels and ranges are used as at least this
STE_CODES = {"closed": 0, "open": 1, "rounded": 2}
REDUCTION_CODES = {"none": 0, "mean": 1, "sum": 2}
AUGMENT_KINDS = {
    "identity": 0,
    "lut": 1,
    "equalize": 2,
    "fixed": 3,
    "nearest": 4,
    "bilinear": 5,
    "autocontrast_pil": 6,
    "contrast_pil": 7,
    "color_pil": 8,
    "sharpness_pil": 9,
    "autocontrast": 10,
    "contrast": 11,
    "color": 12,
    "sharpness": 13,
}

LIBRARY = torch.library.Library("daqakd", "DEF")
OPS: dict[str, str] = {}


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums over ``dtype`` values are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def _define(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define ``schema`` once per backend, with the decorated function as every shape function."""
    name, signature = schema.split("(", 1)

    def attach(shapes: Callable[..., Any]) -> Callable[..., Any]:
        OPS[name] = schema
        for backend in BACKENDS:
            LIBRARY.define(f"{name}.{backend}({signature}", tags=torch.Tag.pt2_compliant_tag)
            torch.library.register_fake(f"daqakd::{name}.{backend}", shapes, lib=LIBRARY)
        return shapes

    return attach


def overload(name: str, backend: str) -> Callable[..., Any]:
    """Return the implementation of op ``name`` by ``backend``."""
    op: Callable[..., Any] = getattr(getattr(torch.ops.daqakd, name), backend)
    return op


def _parameter_gradient(parameter: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=accumulation_dtype(x.dtype))


def _parameter_gradients(parameters: Sequence[Tensor], x: Sequence[Tensor]) -> list[Tensor]:
    return [_parameter_gradient(p, one) for p, one in zip(parameters, x, strict=True)]


def _packed(x: Tensor, per_byte: int) -> Tensor:
    return x.new_empty(((x.numel() + per_byte - 1) // per_byte,), dtype=torch.uint8)


@_define("lsq_forward(Tensor x, Tensor step, int qmin, int qmax, int? axis) -> Tensor")
def _(x: Tensor, step: Tensor, qmin: int, qmax: int, axis: int | None) -> Tensor:
    return torch.empty_like(x)


@_define(
    "lsq_backward(Tensor grad, Tensor x, Tensor step, int qmin, int qmax, int? axis, int ste,"
    " float grad_scale) -> (Tensor, Tensor)"
)
def _(
    grad: Tensor,
    x: Tensor,
    step: Tensor,
    qmin: int,
    qmax: int,
    axis: int | None,
    ste: int,
    grad_scale: float,
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _parameter_gradient(step, x)


@_define(
    "pact_forward(Tensor x, Tensor alpha, int bits, bool signed, int? axis) -> (Tensor, Tensor)"
)
def _(x: Tensor, alpha: Tensor, bits: int, signed: bool, axis: int | None) -> Sequence[Tensor]:
    return torch.empty_like(x), _packed(x, 4)


@_define(
    "pact_backward(Tensor grad, Tensor mask, Tensor alpha, bool signed, int? axis)"
    " -> (Tensor, Tensor)"
)
def _(
    grad: Tensor, mask: Tensor, alpha: Tensor, signed: bool, axis: int | None
) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), _parameter_gradient(alpha, grad)


@_define("dorefa_activation_forward(Tensor x, int bits, bool signed) -> (Tensor, Tensor)")
def _(x: Tensor, bits: int, signed: bool) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _packed(x, 8)


@_define("dorefa_activation_backward(Tensor grad, Tensor mask) -> Tensor")
def _(grad: Tensor, mask: Tensor) -> Tensor:
    return torch.empty_like(grad)


@_define("dorefa_weight_forward(Tensor w, int bits) -> (Tensor, Tensor)")
def _(w: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    return torch.empty_like(w), w.new_empty((), dtype=accumulation_dtype(w.dtype))


@_define(
    "dorefa_weight_backward(Tensor grad, Tensor w, Tensor maximum, int bits, bool detach_max)"
    " -> Tensor"
)
def _(grad: Tensor, w: Tensor, maximum: Tensor, bits: int, detach_max: bool) -> Tensor:
    return torch.empty_like(w)


@_define("ewgs_forward(Tensor x, Tensor lower, Tensor upper, int bits) -> Tensor")
def _(x: Tensor, lower: Tensor, upper: Tensor, bits: int) -> Tensor:
    return torch.empty_like(x)


@_define(
    "ewgs_backward(Tensor grad, Tensor x, Tensor lower, Tensor upper, int bits, float delta,"
    " Tensor? delta_tensor) -> (Tensor, Tensor, Tensor)"
)
def _(
    grad: Tensor,
    x: Tensor,
    lower: Tensor,
    upper: Tensor,
    bits: int,
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), _parameter_gradient(lower, x), _parameter_gradient(upper, x)


@_define("lsq_many_forward(Tensor[] x, Tensor[] step, int[] qmin, int[] qmax) -> Tensor[]")
def _(
    x: Sequence[Tensor], step: Sequence[Tensor], qmin: Sequence[int], qmax: Sequence[int]
) -> list[Tensor]:
    return [torch.empty_like(one) for one in x]


@_define(
    "lsq_many_backward(Tensor[] grad, Tensor[] x, Tensor[] step, int[] qmin, int[] qmax, int ste,"
    " float[] grad_scale) -> (Tensor[], Tensor[])"
)
def _(
    grad: Sequence[Tensor],
    x: Sequence[Tensor],
    step: Sequence[Tensor],
    qmin: Sequence[int],
    qmax: Sequence[int],
    ste: int,
    grad_scale: Sequence[float],
) -> tuple[list[Tensor], list[Tensor]]:
    return [torch.empty_like(one) for one in x], _parameter_gradients(step, x)


@_define("dorefa_weight_many_forward(Tensor[] w, int[] bits) -> (Tensor[], Tensor)")
def _(w: Sequence[Tensor], bits: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    maximum = w[0].new_empty((len(w),), dtype=accumulation_dtype(w[0].dtype))
    return [torch.empty_like(one) for one in w], maximum


@_define(
    "dorefa_weight_many_backward(Tensor[] grad, Tensor[] w, Tensor maximum, int[] bits,"
    " bool detach_max) -> Tensor[]"
)
def _(
    grad: Sequence[Tensor],
    w: Sequence[Tensor],
    maximum: Tensor,
    bits: Sequence[int],
    detach_max: bool,
) -> list[Tensor]:
    return [torch.empty_like(one) for one in w]


@_define("ewgs_many_forward(Tensor[] x, Tensor[] lower, Tensor[] upper, int[] bits) -> Tensor[]")
def _(
    x: Sequence[Tensor], lower: Sequence[Tensor], upper: Sequence[Tensor], bits: Sequence[int]
) -> list[Tensor]:
    return [torch.empty_like(one) for one in x]


@_define(
    "ewgs_many_backward(Tensor[] grad, Tensor[] x, Tensor[] lower, Tensor[] upper, int[] bits,"
    " float delta, Tensor? delta_tensor) -> (Tensor[], Tensor[], Tensor[])"
)
def _(
    grad: Sequence[Tensor],
    x: Sequence[Tensor],
    lower: Sequence[Tensor],
    upper: Sequence[Tensor],
    bits: Sequence[int],
    delta: float,
    delta_tensor: Tensor | None,
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    dx = [torch.empty_like(one) for one in x]
    return dx, _parameter_gradients(lower, x), _parameter_gradients(upper, x)


KD_ARGUMENTS = (
    "Tensor student, Tensor teacher, Tensor? labels,"
    " float temperature, float ce_weight, float kd_weight,"
    " Tensor? temperature_tensor, Tensor? ce_weight_tensor, Tensor? kd_weight_tensor,"
    " float label_smoothing, int ignore_index, int reduction"
)


@_define(
    f"kd_loss_forward({KD_ARGUMENTS}, bool with_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    temperature_tensor: Tensor | None,
    ce_weight_tensor: Tensor | None,
    kd_weight_tensor: Tensor | None,
    label_smoothing: float,
    ignore_index: int,
    reduction: int,
    with_grad: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    each = reduction == REDUCTION_CODES["none"]
    rows = student.new_empty(student.shape[:1], dtype=accumulation_dtype(student.dtype))
    loss = rows.new_empty(rows.shape if each else ())
    grad = student.new_empty(student.shape if with_grad else (0, student.shape[1]))
    return loss, rows.new_empty(0 if each else 2), rows, torch.empty_like(rows), grad


@_define(f"kd_loss_backward(Tensor grad, {KD_ARGUMENTS}) -> Tensor")
def _(grad: Tensor, student: Tensor, *arguments: Any) -> Tensor:
    return student.new_empty(student.shape)


@_define(
    "cmi_update(Tensor(a!) state, Tensor logits, Tensor labels, Tensor? weight, Tensor? group)"
    " -> ()"
)
def _(
    state: Tensor, logits: Tensor, labels: Tensor, weight: Tensor | None, group: Tensor | None
) -> None:
    return None


@_define("cmi_divergence(Tensor logits, Tensor labels, Tensor centroids) -> Tensor")
def _(logits: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    return logits.new_empty(logits.shape[:1], dtype=torch.float64)


@_define(
    "cmi_divergence_backward(Tensor grad, Tensor logits, Tensor labels, Tensor centroids) -> Tensor"
)
def _(grad: Tensor, logits: Tensor, labels: Tensor, centroids: Tensor) -> Tensor:
    return torch.empty_like(logits)


@_define(
    "augment(Tensor pixels, Tensor index, Tensor crop, Tensor flip, Tensor setting,"
    " Tensor kind, Tensor lut, Tensor integer, Tensor real, Tensor? share, Tensor? erase,"
    " Tensor? partner, Tensor? box, Tensor? weight, Tensor? values, ScalarType dtype,"
    " bool channels_last) -> Tensor"
)
def _(
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
    rows = index.shape[0] if partner is None else partner.shape[0]
    order = torch.channels_last if channels_last else torch.contiguous_format
    shape = (rows, *pixels.shape[1:])
    return torch.empty(shape, dtype=dtype, device=pixels.device, memory_format=order)
