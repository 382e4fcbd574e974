"""The contract: every op's schema and shape function; one overload per backend.

An op is called through its overload, ``torch.ops.daqakd.<op>.<backend>``, never through the packet.
``axis=None`` means one parameter for the whole tensor. Sums and quantizer parameters' gradients are
float32, or float64 where the input is. Masks are packed in memory order of ``empty_like(x)``, low
bits first, and so are codes, each in ``slot_bits`` bits: ``codes_pack`` keeps quantized values as
codes minus the lowest one, NaN as 0; ``codes_unpack`` gives the same bits back, in memory order.
``bn_act_quant_forward`` returns the values, the activation and the statistics, and the codes that
``codes_pack`` gives of the values; what was not asked for is empty.
``kd_loss_forward`` returns the loss; the reduced CE and KL ``[2]``, without a reduction ``[0]``;
each row's CE and KL ``[B]``; and the gradient, for a mean the mean's times B.
"""

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.utils._pytree import tree_leaves

from ._errors import InputError

BACKENDS = ["reference", "triton", "native"]  # see add_backend
SMALLEST = 2.0**-30  # steps, clipping levels and ranges are used as at least this
STE_CODES = {"closed": 0, "open": 1, "rounded": 2}
REDUCTION_CODES = {"none": 0, "mean": 1, "sum": 2}
ACTIVATION_CODES = {"none": 0, "relu": 1, "relu6": 2}
METHOD_CODES = {"lsq": 1, "pact": 2, "dorefa": 3, "ewgs": 4}  # of activation quantizers; 0: none
KINDS = "identity lut equalize fixed nearest bilinear autocontrast_pil contrast_pil color_pil"
KINDS += " sharpness_pil autocontrast contrast color sharpness"
AUGMENT_KINDS = {kind: code for code, kind in enumerate(KINDS.split())}
INPUT_DTYPES = {"augment": (torch.uint8,)}  # by stem; all others take floating-point tensors

Tensors = Sequence[Tensor]
LIBRARY = torch.library.Library("daqakd", "DEF")
SCHEMAS: dict[str, str] = {}  # by name of the op
SHAPES: dict[str, Callable[..., Any]] = {}  # likewise
OVERLOADS: dict[tuple[str, str], Callable[..., Any]] = {}  # by name of the op, and backend
STEMS: dict[str, list[str]] = {}  # what backends are chosen for -> its ops: lsq -> lsq_forward, ...


def accumulation_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that sums over ``dtype`` values are kept in."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def stem_of(name: str) -> str:
    """Return the stem of the op ``name``: ``"cmi"`` for ``"cmi_divergence_backward"``."""
    return re.sub("_(forward|backward|update|divergence|pack|unpack)", "", name)


def _without_memory(shapes: Callable[..., Any]) -> Callable[..., Any]:
    """Refuse real tensors beside one on meta: an empty result would be read as theirs."""

    @functools.wraps(shapes)
    def run(*arguments: Any) -> Any:
        for x in tree_leaves(arguments):
            if isinstance(x, Tensor) and x.device.type != "meta" and not isinstance(x, FakeTensor):
                raise InputError(
                    f"expected all tensors on one device, got some on {x.device} and some on meta;"
                    " give the tensors on meta their values first"
                )
        return shapes(*arguments)

    return run


def _define_overload(name: str, backend: str) -> None:
    signature = SCHEMAS[name].split("(", 1)[1]
    LIBRARY.define(f"{name}.{backend}({signature}", tags=torch.Tag.pt2_compliant_tag)
    torch.library.register_fake(f"daqakd::{name}.{backend}", SHAPES[name], lib=LIBRARY)


def _define(schema: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Define ``schema`` once per backend, with the decorated function as every shape function."""
    name = schema.split("(", 1)[0]

    def attach(shapes: Callable[..., Any]) -> Callable[..., Any]:
        SCHEMAS[name], SHAPES[name] = schema, _without_memory(shapes)
        STEMS.setdefault(stem_of(name), []).append(name)
        for backend in BACKENDS:
            _define_overload(name, backend)
        return shapes

    return attach


def add_backend(name: str) -> None:
    """Define an overload of every op for one more backend; its kernels are registered to them.

    ``daqakd.backends.select.RUNNERS`` takes its predicate.
    """
    for op in SCHEMAS:
        _define_overload(op, name)
    BACKENDS.append(name)
    _look_up(name)


def _look_up(backend: str) -> None:
    """Keep the overloads of ``backend``: torch would search for them at every call."""
    for op in SCHEMAS:
        OVERLOADS[op, backend] = getattr(getattr(torch.ops.daqakd, op), backend)


def overload(name: str, backend: str) -> Callable[..., Any]:
    """Return the implementation of op ``name`` by ``backend``."""
    return OVERLOADS[name, backend]


def implemented(backend: str, device: str) -> frozenset[str]:
    """Ask the dispatcher for the stems all of whose ops ``backend`` implements on ``device``."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    return frozenset(
        stem
        for stem, names in STEMS.items()
        if all(has_kernel(f"daqakd::{name}.{backend}", device.upper()) for name in names)
    )


def _parameter_gradient(parameter: Tensor, x: Tensor) -> Tensor:
    return torch.empty_like(parameter, dtype=accumulation_dtype(x.dtype))


def _parameter_gradients(parameters: Tensors, x: Tensors) -> list[Tensor]:
    return [_parameter_gradient(p, one) for p, one in zip(parameters, x, strict=True)]


def _like_each(tensors: Tensors) -> list[Tensor]:
    return [torch.empty_like(one) for one in tensors]


def slot_bits(bits: int) -> int:
    """Return the bits that a packed code takes: 1, 2, 4 or 8, the least that hold it."""
    slot: int = 1 << (bits - 1).bit_length()
    return min(slot, 8)


def _packed(x: Tensor, per_byte: int) -> Tensor:
    return x.new_empty(((x.numel() + per_byte - 1) // per_byte,), dtype=torch.uint8)


@_define("lsq_forward(Tensor x, Tensor step, int qmin, int qmax, int? axis) -> Tensor")
def _(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


@_define(
    "lsq_backward(Tensor grad, Tensor x, Tensor step, int qmin, int qmax, int? axis, int ste,"
    " float grad_scale) -> (Tensor, Tensor)"
)
def _(grad: Tensor, x: Tensor, step: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _parameter_gradient(step, x)


@_define(
    "pact_forward(Tensor x, Tensor alpha, int bits, bool signed, int? axis) -> (Tensor, Tensor)"
)
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _packed(x, 4)


@_define(
    "pact_backward(Tensor grad, Tensor mask, Tensor alpha, bool signed, int? axis)"
    " -> (Tensor, Tensor)"
)
def _(grad: Tensor, mask: Tensor, alpha: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad), _parameter_gradient(alpha, grad)


@_define("dorefa_activation_forward(Tensor x, int bits, bool signed) -> (Tensor, Tensor)")
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
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
def _(grad: Tensor, w: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(w)


@_define("ewgs_forward(Tensor x, Tensor lower, Tensor upper, int bits) -> Tensor")
def _(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


@_define(
    "ewgs_backward(Tensor grad, Tensor x, Tensor lower, Tensor upper, int bits, float delta,"
    " Tensor? delta_tensor) -> (Tensor, Tensor, Tensor)"
)
def _(
    grad: Tensor, x: Tensor, lower: Tensor, upper: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), _parameter_gradient(lower, x), _parameter_gradient(upper, x)


@_define("lsqplus_forward(Tensor x, Tensor step, Tensor offset, int bits) -> Tensor")
def _(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


@_define(
    "lsqplus_backward(Tensor grad, Tensor x, Tensor step, Tensor offset, int bits,"
    " float grad_scale) -> (Tensor, Tensor, Tensor)"
)
def _(
    grad: Tensor, x: Tensor, step: Tensor, offset: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), _parameter_gradient(step, x), _parameter_gradient(offset, x)


@_define("seq_forward(Tensor x, Tensor step, int levels, int? axis) -> Tensor")
def _(x: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(x)


@_define(
    "seq_backward(Tensor grad, Tensor x, Tensor step, int levels, int? axis, float grad_scale)"
    " -> (Tensor, Tensor)"
)
def _(grad: Tensor, x: Tensor, step: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), _parameter_gradient(step, x)


@_define("lsq_many_forward(Tensor[] x, Tensor[] step, int[] qmin, int[] qmax) -> Tensor[]")
def _(x: Tensors, *rest: Any) -> list[Tensor]:
    return _like_each(x)


@_define(
    "lsq_many_backward(Tensor[] grad, Tensor[] x, Tensor[] step, int[] qmin, int[] qmax, int ste,"
    " float[] grad_scale) -> (Tensor[], Tensor[])"
)
def _(grad: Tensors, x: Tensors, step: Tensors, *rest: Any) -> tuple[list[Tensor], list[Tensor]]:
    return _like_each(x), _parameter_gradients(step, x)


@_define("dorefa_weight_many_forward(Tensor[] w, int[] bits) -> (Tensor[], Tensor)")
def _(w: Tensors, bits: Sequence[int]) -> tuple[list[Tensor], Tensor]:
    return _like_each(w), w[0].new_empty((len(w),), dtype=accumulation_dtype(w[0].dtype))


@_define(
    "dorefa_weight_many_backward(Tensor[] grad, Tensor[] w, Tensor maximum, int[] bits,"
    " bool detach_max) -> Tensor[]"
)
def _(grad: Tensors, w: Tensors, *rest: Any) -> list[Tensor]:
    return _like_each(w)


@_define("ewgs_many_forward(Tensor[] x, Tensor[] lower, Tensor[] upper, int[] bits) -> Tensor[]")
def _(x: Tensors, *rest: Any) -> list[Tensor]:
    return _like_each(x)


@_define(
    "ewgs_many_backward(Tensor[] grad, Tensor[] x, Tensor[] lower, Tensor[] upper, int[] bits,"
    " float delta, Tensor? delta_tensor) -> (Tensor[], Tensor[], Tensor[])"
)
def _(
    grad: Tensors, x: Tensors, lower: Tensors, upper: Tensors, *rest: Any
) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    return _like_each(x), _parameter_gradients(lower, x), _parameter_gradients(upper, x)


BN_QUANTIZER = "int method, Tensor? parameter, Tensor? upper, int bits, bool signed"


@_define(
    "bn_act_quant_forward(Tensor x, Tensor? residual, Tensor? weight, Tensor? bias,"
    " Tensor(a!)? running_mean, Tensor(b!)? running_var, bool training, float momentum,"
    f" Tensor? momentum_tensor, float eps, int activation, {BN_QUANTIZER}, bool with_activation,"
    " bool with_codes) -> (Tensor, Tensor, Tensor, Tensor)"
)
def _(x: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    bits, _, with_activation, with_codes = rest[-4:]
    statistics = x.new_empty((2, x.shape[1]), dtype=accumulation_dtype(x.dtype))
    activation = torch.empty_like(x) if with_activation else x.new_empty((0,))
    per_byte = 8 // slot_bits(bits)
    codes = _packed(x, per_byte) if with_codes else x.new_empty((0,), dtype=torch.uint8)
    return torch.empty_like(x), activation, statistics, codes


@_define(
    "bn_act_quant_backward(Tensor? grad, Tensor? grad_activation, Tensor x, Tensor? residual,"
    " Tensor statistics, Tensor? weight, Tensor? bias, bool training, int activation,"
    f" {BN_QUANTIZER}, int ste, float grad_scale, float delta, Tensor? delta_tensor,"
    " bool with_residual) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _(
    grad: Tensor | None, grad_activation: Tensor | None, x: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    parameter, upper, with_residual = rest[7], rest[8], rest[-1]
    norm = x.new_empty((2, x.shape[1]), dtype=accumulation_dtype(x.dtype))
    dresidual = torch.empty_like(x) if with_residual else x.new_empty((0,))
    none = norm.new_empty((0,))
    dparameter = none if parameter is None else _parameter_gradient(parameter, x)
    dupper = torch.empty_like(none) if upper is None else _parameter_gradient(upper, x)
    return torch.empty_like(x), dresidual, norm, dparameter, dupper


CODE_ARGUMENTS = "Tensor? parameter, int method, int bits, bool signed"


@_define(f"codes_pack(Tensor y, {CODE_ARGUMENTS}) -> Tensor")
def _(y: Tensor, parameter: Tensor | None, method: int, bits: int, signed: bool) -> Tensor:
    return _packed(y, 8 // slot_bits(bits))


@_define(f"codes_unpack(Tensor codes, {CODE_ARGUMENTS}, int count, ScalarType dtype) -> Tensor")
def _(codes: Tensor, *rest: Any) -> Tensor:
    count, dtype = rest[-2:]
    return codes.new_empty((count,), dtype=dtype)


KD_ARGUMENTS = (  # from the temperature on: KDSettings
    "Tensor student, Tensor teacher, Tensor? labels,"
    " float temperature, float ce_weight, float kd_weight,"
    " Tensor? temperature_tensor, Tensor? ce_weight_tensor, Tensor? kd_weight_tensor,"
    " float label_smoothing, int ignore_index, int reduction"
)


@_define(
    f"kd_loss_forward({KD_ARGUMENTS}, bool with_grad) -> (Tensor, Tensor, Tensor, Tensor, Tensor)"
)
def _(
    student: Tensor, teacher: Tensor, labels: Tensor | None, *rest: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    *_, reduction, with_grad = rest
    per_row = reduction == REDUCTION_CODES["none"]
    rows = student.new_empty(student.shape[:1], dtype=accumulation_dtype(student.dtype))
    loss = rows.new_empty(rows.shape if per_row else ())
    grad = student.new_empty(student.shape if with_grad else (0, student.shape[1]))
    return loss, rows.new_empty(0 if per_row else 2), rows, torch.empty_like(rows), grad


@_define(f"kd_loss_backward(Tensor grad, {KD_ARGUMENTS}) -> Tensor")
def _(grad: Tensor, student: Tensor, *rest: Any) -> Tensor:
    return student.new_empty(student.shape)


@_define(
    "cmi_update(Tensor(a!) state, Tensor logits, Tensor labels, Tensor? weight, Tensor? group)"
    " -> ()"
)
def _(*arguments: Any) -> None:
    return None


@_define("cmi_divergence(Tensor logits, Tensor labels, Tensor centroids) -> Tensor")
def _(logits: Tensor, *rest: Any) -> Tensor:
    return logits.new_empty(logits.shape[:1], dtype=torch.float64)


@_define(
    "cmi_divergence_backward(Tensor grad, Tensor logits, Tensor labels, Tensor centroids) -> Tensor"
)
def _(grad: Tensor, logits: Tensor, *rest: Any) -> Tensor:
    return torch.empty_like(logits)


@_define(
    "augment(Tensor pixels, Tensor index, Tensor crop, Tensor flip, Tensor setting,"
    " Tensor kind, Tensor lut, Tensor integer, Tensor real, Tensor? share, Tensor? erase,"
    " Tensor? partner, Tensor? box, Tensor? weight, Tensor? values, ScalarType dtype,"
    " bool channels_last) -> Tensor"
)
def _(pixels: Tensor, index: Tensor, *rest: Any) -> Tensor:
    partner, _, _, _, dtype, channels_last = rest[-6:]
    rows = index.shape[0] if partner is None else partner.shape[0]
    order = torch.channels_last if channels_last else torch.contiguous_format
    shape = (rows, *pixels.shape[1:])
    return torch.empty(shape, dtype=dtype, device=pixels.device, memory_format=order)


for _backend in BACKENDS:
    _look_up(_backend)
