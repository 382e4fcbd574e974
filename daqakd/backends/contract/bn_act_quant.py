"""The op on batch norm, activation and quantizer."""

from typing import Any

from torch import Tensor

from ..._ops import ACTIVATION_CODES, METHOD_CODES, STE_CODES, accumulation_dtype
from ._arguments import bit_width, floating_tensor, known_code, number, parameter, require, same
from ._registry import check

PARAMETERS = {"parameter": ("lsq", "pact", "ewgs"), "upper": ("ewgs",)}


def _norm(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
    floating_tensor("x", x)
    require(x.dim() >= 2, f"x: expected [N, C, ...], got {tuple(x.shape)}")
    parameter("weight", weight, x, 1)
    parameter("bias", bias, x, 1)


def _running(name: str, value: Tensor | None, x: Tensor) -> None:
    """Require what an op can write in place, where there is one."""
    parameter(name, value, x, 1)
    wanted = accumulation_dtype(x.dtype)
    require(
        value is None or (value.dtype == wanted and value.is_contiguous()),
        f"{name}: expected contiguous {wanted} for {x.dtype} inputs",
    )


def _quantizer(x: Tensor, activation: int, method: int, *rest: Any) -> None:
    *given, bits, signed = rest
    known_code("activation", activation, ACTIVATION_CODES)
    known_code("method", method, {"none": 0, **METHOD_CODES})
    for (name, methods), value in zip(PARAMETERS.items(), given, strict=True):
        wanted = method in [METHOD_CODES[one] for one in methods]
        require(
            wanted == (value is not None),
            f"{name}: method {method} takes {'one' if wanted else 'none'}",
        )
        parameter(name, value, x)
    bit_width(bits, signed)
    ewgs = method == METHOD_CODES["ewgs"]
    require(not (signed and ewgs), "signed: ewgs has no signed form; give a lower end below 0")


@check
def bn_act_quant_forward(
    x: Tensor,
    residual: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    *rest: Any,
) -> None:
    momentum, momentum_tensor, eps, *quantizer, _, with_codes = rest
    _norm(x, weight, bias)
    if residual is not None:
        same("residual", residual, x)
    _running("running_mean", running_mean, x)
    _running("running_var", running_var, x)
    require(
        (running_mean is None) == (running_var is None) and (training or running_mean is not None),
        "running_mean, running_var: expected both, or none where the batch's statistics are used",
    )
    number("momentum", momentum)
    parameter("momentum_tensor", momentum_tensor, x)
    require(0 <= eps < float("inf"), f"eps: expected a finite number from 0 on, got {eps}")
    _quantizer(x, *quantizer)
    require(
        not with_codes or quantizer[1] != 0,
        "with_codes: method 0 has no codes; give a quantizer, or with_codes=False",
    )


@check
def bn_act_quant_backward(
    grad: Tensor | None,
    grad_activation: Tensor | None,
    x: Tensor,
    residual: Tensor | None,
    statistics: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    training: bool,
    *rest: Any,
) -> None:
    *quantizer, ste, grad_scale, delta, delta_tensor, _ = rest
    _norm(x, weight, bias)
    for name, value in (
        ("grad", grad),
        ("grad_activation", grad_activation),
        ("residual", residual),
    ):
        if value is not None:
            same(name, value, x)
    wanted, shape = accumulation_dtype(x.dtype), (2, x.shape[1])
    require(
        statistics.shape == shape and statistics.dtype == wanted and statistics.is_contiguous(),
        f"statistics: expected contiguous {wanted} {shape}, got {statistics.dtype}"
        f" {tuple(statistics.shape)}",
    )
    parameter("statistics", statistics[0], x, 1)
    _quantizer(x, *quantizer)
    known_code("ste", ste, STE_CODES)
    number("grad_scale", grad_scale)
    number("delta", delta)
    parameter("delta_tensor", delta_tensor, x)
