"""What ``bn_act_quant`` demands of its arguments."""

from collections.abc import Sequence

import torch
from torch import Tensor

from .._errors import InputError, unknown
from .._ops import accumulation_dtype
from . import _checks

PARAMETERS = {
    None: (),
    "lsq": ("step",),
    "pact": ("alpha",),
    "dorefa": (),
    "ewgs": ("lower", "upper"),
}


def check_norm(x: Tensor, given: dict[str, Tensor | None], training: bool) -> None:
    """Require what a norm takes: ``given`` are its tensors by name."""
    _checks.floating("x", x)
    if x.dim() < 2:
        raise InputError(f"x: expected [N, C, ...], got {tuple(x.shape)}")
    for name, value in given.items():
        if value is not None:
            _checks.parameter(name, value, x, 1)
    running = given["running_mean"], given["running_var"]
    if (running[0] is None) != (running[1] is None) or (not training and running[0] is None):
        raise InputError(
            "running_mean, running_var: expected both, or none where training=True uses the"
            " statistics of the batch"
        )
    wanted = accumulation_dtype(x.dtype)
    for name, value in zip(("running_mean", "running_var"), running, strict=True):
        if value is not None and (value.dtype != wanted or not value.is_contiguous()):
            raise InputError(f"{name}: expected contiguous {wanted}, got {value.dtype}; convert it")
    if training and x.numel() == x.shape[1]:
        raise InputError(
            f"x: one value per channel, {tuple(x.shape)}, has no variance; use a larger batch or"
            " training=False"
        )


def check_codes(with_codes: bool, method: str | None) -> None:
    """Require a quantizer, and a program that runs here, where its codes are asked for."""
    _checks.flag("with_codes", with_codes)
    if with_codes and method is None:
        raise InputError("with_codes: method None has no codes; name a method")
    if with_codes and torch.compiler.is_exporting():
        raise InputError("with_codes: an exported program has no codes; export without them")


def check_residual(residual: Tensor | None, x: Tensor) -> None:
    """Require a residual like x, where there is one."""
    if residual is None:
        return
    _checks.tensor("residual", residual)
    if residual.shape != x.shape or residual.dtype != x.dtype:
        raise InputError(
            f"residual: expected {x.dtype} {tuple(x.shape)} as x, got {residual.dtype}"
            f" {tuple(residual.shape)}"
        )
    _checks.same_device("residual", residual, x)


def check_quantizer(
    x: Tensor, method: str | None, parameters: Sequence[Tensor], bits: int, signed: bool
) -> tuple[Tensor | None, Tensor | None]:
    """Return the quantizer's parameters, None where it has fewer than two."""
    if method not in PARAMETERS:
        raise unknown("method", str(method), [name for name in PARAMETERS if name])
    names = PARAMETERS[method]
    if not isinstance(parameters, list | tuple) or len(parameters) != len(names):
        wanted = f"({', '.join(names)})" if names else "none"
        raise InputError(f"parameters: expected {wanted} for method {method}, got {parameters!r}")
    for name, value in zip(names, parameters, strict=True):
        _checks.parameter(name, value, x, None)
    if method is not None:
        _checks.integer_range(bits, signed)
    if signed and method == "ewgs":
        raise InputError("signed: ewgs has no signed form; give lower a value below 0")
    first, second = (*parameters, None, None)[:2]
    return first, second
