"""Argument checks shared by the public functions; each message names the argument."""

from typing import Any, Literal, get_args

import torch
from torch import Tensor

from .._errors import InputError, seen, unknown
from .._ops import STE_CODES
from ..backends.contract import FLOATS, LARGEST_NUMBER, number

Semantics = Literal["pil", "torchvision"]  # whose pixels an image operation reproduces
# by whether it is signed, and bits: the lowest and the highest code
RANGES = (
    {bits: (0, 2**bits - 1) for bits in range(1, 9)},
    {bits: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in range(2, 9)},
)
SEMANTICS: tuple[Semantics, ...] = get_args(Semantics)


def tensor(name: str, x: Any) -> None:
    """Require a tensor."""
    if not isinstance(x, Tensor):
        raise InputError(f"{name}: expected a tensor, got {type(x).__name__}; make it one first")


def flag(name: str, value: Any) -> None:
    """Require True or False."""
    if not isinstance(value, bool):
        raise InputError(f"{name}: expected True or False, got {value!r}")


def integer(name: str, value: Any, lowest: int) -> None:
    """Require an integer from ``lowest`` on."""
    if isinstance(value, bool) or not isinstance(value, int) or value < lowest:
        raise InputError(f"{name}: expected an integer from {lowest} on, got {value!r}")


def real(name: str, value: Any) -> float:
    """Return a finite Python number as a float."""
    if type(value) is float and abs(value) <= LARGEST_NUMBER:
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{name}: expected a number, got {value!r} of type {type(value).__name__}; pass a float"
        )
    number(name, value)
    return float(value)


def same_device(name: str, value: Tensor, x: Tensor, what: str = "the input") -> None:
    """Require a tensor on the device of ``x``."""
    if value.device != x.device:
        raise InputError(f"{name}: is on {value.device}, but {what} is on {x.device}; move it")


def floating(name: str, x: Any) -> None:
    """Require a floating-point tensor."""
    if not isinstance(x, Tensor):
        tensor(name, x)
    if x.dtype not in FLOATS:
        raise InputError(
            f"{name}: expected float16, bfloat16, float32 or float64, got {x.dtype}; cast it first"
        )


def bit_width(bits: int, lowest: int = 1, why: str = "", name: str = "bits") -> None:
    """Require ``lowest <= bits <= 8``."""
    if isinstance(bits, bool) or not isinstance(bits, int) or not lowest <= bits <= 8:
        raise InputError(f"{name}: expected an integer from {lowest} to 8{why}, got {seen(bits)}")


def level_count(name: str, levels: Any, highest: int = 256, why: str = "") -> None:
    """Require ``2 <= levels <= highest``."""
    integer = isinstance(levels, int) and not isinstance(levels, bool)
    if not integer or not 2 <= levels <= highest:
        raise InputError(
            f"{name}: expected an integer from 2 to {highest}{why}, got {seen(levels)}"
        )


def integer_range(bits: int, signed: bool) -> tuple[int, int]:
    """Return the lowest and highest code: [0, 2^b - 1], or [-2^(b-1), 2^(b-1) - 1] if signed."""
    if type(bits) is not int or type(signed) is not bool or not 2 <= bits <= 8:
        flag("signed", signed)
        bit_width(bits, 2 if signed else 1, " for a signed range" if signed else "")
    return RANGES[signed][bits]


def parameter(name: str, value: Tensor, x: Tensor, axis: int | None) -> None:
    """Require one value, or with ``axis`` one per index of that axis, on the device of ``x``."""
    if not isinstance(value, Tensor) or value.dtype not in FLOATS:
        floating(name, value)
    if not (value.is_cpu and x.is_cpu):
        same_device(name, value, x)
    if axis is None:
        if value.numel() != 1:
            raise InputError(
                f"{name}: expected one value, got shape {tuple(value.shape)};"
                " pass axis= for one value per channel"
            )
    elif isinstance(axis, bool) or not isinstance(axis, int) or not -x.dim() <= axis < x.dim():
        raise InputError(f"axis: expected a dimension of the {x.dim()}-D input, got {axis!r}")
    elif value.shape != x.shape[axis : axis + 1 or None]:
        raise InputError(
            f"{name}: expected shape ({x.shape[axis]},) for axis={axis}, got {tuple(value.shape)}"
        )


def ste_code(ste: str) -> int:
    """Return the op's code of a straight-through mask convention."""
    if not isinstance(ste, str) or ste not in STE_CODES:
        raise InputError(f"ste: expected one of {', '.join(STE_CODES)}, got {ste!r}")
    return STE_CODES[ste]


def labels(given: Any, logits: Tensor) -> None:
    """Require int64 ``[B]`` or probabilities ``[B, C]`` for logits ``[B, C]``."""
    tensor("labels", given)
    soft = given.is_floating_point()
    wanted = logits.shape if soft else logits.shape[:1]
    if given.shape != wanted or not (soft or given.dtype == torch.int64):
        raise InputError(
            f"labels: expected int64 [B] or probabilities [B, C] for logits"
            f" {tuple(logits.shape)}, got {given.dtype} {tuple(given.shape)}"
        )
    same_device("labels", given, logits, "the logits")


def images(name: str, pixels: Any) -> None:
    """Require uint8 images."""
    tensor(name, pixels)
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] != 3:
        raise InputError(
            f"{name}: expected uint8 [N, 3, H, W], got {pixels.dtype} {tuple(pixels.shape)}"
        )


def check_semantics(semantics: str) -> Semantics:
    """Return ``semantics`` if it is one of ``SEMANTICS``, else raise InputError."""
    for known in SEMANTICS:
        if semantics == known:
            return known
    raise unknown("semantics", str(semantics), list(SEMANTICS))


def is_pil(semantics: str) -> bool:
    """Return whether Pillow's arithmetic is wanted, else torchvision's."""
    return check_semantics(semantics) == "pil"
