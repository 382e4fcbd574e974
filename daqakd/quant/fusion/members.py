"""When the members of a chain may be run by one op: right classes, no hooks, tensors it takes."""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_modules

from ..base import ActivationQuantizer
from ..flags import read_flags
from ..layers import QuantLayer

# exact classes, whose formula is the op's, and the dimensions of what they take
NORMS: dict[type, tuple[int, ...]] = {
    nn.BatchNorm1d: (2, 3),
    nn.BatchNorm2d: (4,),
    nn.BatchNorm3d: (5,),
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
PLAIN = (Tensor, nn.Parameter)


def is_hooked(module: nn.Module) -> bool:
    """Return whether something runs around the module's forward pass, or in place of it."""
    own = module.__dict__
    return bool(
        own["_forward_hooks"]
        or own["_forward_pre_hooks"]
        or own["_backward_hooks"]
        or own["_backward_pre_hooks"]
        or "forward" in own
    )


def any_global_hook() -> bool:
    """Return whether hooks run around every module."""
    return bool(
        torch_modules._global_forward_hooks
        or torch_modules._global_forward_pre_hooks
        or torch_modules._global_backward_hooks
        or torch_modules._global_backward_pre_hooks
    )


Kind = Literal["relu", "relu6"]  # of activation that the op has


def activation_kind(module: nn.Module | None) -> Kind | None:
    """Return ``relu`` or ``relu6`` for the exact modules of these."""
    kind = type(module)
    if kind is nn.ReLU:
        return "relu"
    if isinstance(module, nn.Hardtanh) and kind in (nn.ReLU6, nn.Hardtanh):
        return "relu6" if (module.min_val, module.max_val) == (0, 6) else None
    return None


def is_ready(quantizer: ActivationQuantizer) -> bool:
    """Return whether it quantizes: calibrated, and not in calibration."""
    if quantizer.flags_changed():
        read_flags([quantizer])
    return quantizer.phase is None and quantizer.known_calibrated


def layers_obstacle(layers: tuple[Any, ...]) -> str | None:
    """Return why no op can quantize the input of these layers, as one, before they are called."""
    for layer in layers:
        quantizer = layer._modules.get("act_quantizer")
        if quantizer is None or not isinstance(layer, QuantLayer):
            return "a layer after it does not quantize its input"
        if not quantizer.has_fused_op:
            return f"no op for the {quantizer.method} of a layer after it"
        if layer.passing:
            return "a layer after it is passing its input through"
        if is_hooked(layer) or is_hooked(quantizer):
            return "hooks on a layer after it, or on its quantizer"
    if len(layers) > 1:
        keys = [layer.act_quantizer.cache_key() for layer in layers]
        if any(key != keys[0] for key in keys):
            return "the quantizers after it differ"
    return None


def norm_obstacle(norm: nn.Module) -> str | None:
    """Return why the op cannot stand for a norm."""
    if type(norm) not in NORMS:
        return f"{type(norm).__name__} is not exactly BatchNorm1d, BatchNorm2d or BatchNorm3d"
    if "_is_replica" in norm.__dict__:
        return "it is a replica of DataParallel"
    return "hooks on it" if is_hooked(norm) else None


def takes(
    dimensions: tuple[int, ...], state: tuple[Tensor | None, ...], x: Any, residual: Any
) -> bool:
    """Return whether the op takes these tensors, the ``state`` of a norm among them."""
    if type(x) is not Tensor or x.dtype not in FLOATS or x.dim() not in dimensions:
        return False
    if x.numel() <= x.shape[1]:  # none, or one value per channel, which torch refuses in training
        return False
    wide = torch.float64 if x.dtype is torch.float64 else torch.float32
    for part in state:
        if part is not None and (part.dtype is not wide or type(part) not in PLAIN):
            return False
        if part is not None and not part.is_contiguous():
            return False
    if residual is None:
        return True
    return type(residual) is Tensor and residual.dtype is x.dtype and residual.shape == x.shape
