"""What ``quantize`` can work on: the model, its copy, its weights, and what is left to quantize."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._arguments import check_module
from .._errors import InputError
from .kinds import kind_of
from .layers import QuantLayer
from .placed import PlacedOperation
from .spec import LayerSpec


def check_model(model: Any) -> None:
    """Require a module with its weights that is neither quantized nor compiled to a graph.

    Raises:
        InputError: another type, scripted or traced, lazy, or quantized already.
    """
    check_module("model", model)
    if isinstance(model, torch.jit.ScriptModule):
        raise InputError(
            "model: is scripted or traced, so its layers cannot be replaced; pass the module that"
            " it was made from"
        )
    for name, module in model.named_modules():
        placed = isinstance(module, PlacedOperation) and module.is_quantized
        if isinstance(module, QuantLayer) or placed:
            raise InputError(
                f"model: is quantized already ({name or 'it'} is a {type(module).__name__}); pass"
                " the full-precision model, or what dequantize() returns"
            )
        if isinstance(module, LazyModuleMixin) and module.has_uninitialized_params():  # type: ignore[misc]
            raise InputError(
                f"model: {name or 'it'} is lazy and has no weights yet; run one forward pass first"
            )


def copy_of(model: nn.Module) -> nn.Module:
    """Return a deep copy; tensors that hooks compute anew before each pass are copied as values.

    ``torch.nn.utils.weight_norm`` and ``prune`` leave such tensors, which torch does not copy.
    """
    memo: dict[int, Any] = {}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, Tensor) and value.grad_fn is not None:
                memo[id(value)] = value.detach().clone()
    twin: nn.Module = copy.deepcopy(model, memo)
    return twin


def check_weights(layers: Mapping[str, nn.Module], specs: Mapping[str, LayerSpec]) -> None:
    """Require weights that quantizers can start from; waits for the device once.

    Raises:
        InputError: a weight that is empty, not finite, or all zero where the method has no start.
    """
    found = [
        (name, weight)
        for name, spec in specs.items()
        if spec.weight_bits is not None
        for weight in _weights(layers[name])
    ]
    if not found:
        return
    empty = next((name for name, weight in found if weight.numel() == 0), None)
    if empty is not None:
        raise InputError(f"{empty}: its weight has no elements; exclude= it, or remove the layer")
    sizes = [weight.detach().abs().amax().float().cpu() for _, weight in found]
    for (name, _), size in zip(found, torch.stack(sizes).tolist(), strict=True):
        method = specs[name].weights_by
        if not size < float("inf"):
            raise InputError(f"{name}: its weight has NaN or infinite values; load other weights")
        if size == 0 and method not in ("lsq", "seq"):
            raise InputError(
                f"{name}: its weight is all zero, which {method} cannot start from: it would never"
                " get a gradient; initialise it otherwise, exclude= it, or use"
                " overrides= with weight_method='lsq' or 'seq'"
            )


def _weights(layer: nn.Module) -> list[Tensor]:
    """Return those that have values."""
    kind = kind_of(layer)
    found = [] if kind is None else kind.weights_of(layer)
    return [weight for weight in found if not weight.is_meta]


def check_any(quantized: Iterable[Any], refused: Mapping[str, str], left: Iterable[str]) -> None:
    """Require a layer to quantize.

    Raises:
        InputError: there is none, because of the model or of the options.
    """
    if any(True for _ in quantized):
        return
    reasons = "; ".join(f"{name or 'the model'}: {why}" for name, why in list(refused.items())[:3])
    if any(True for _ in left):
        cause = "exclude=, first_last, overrides or widths leave every layer in full precision"
    elif reasons:
        cause = f"none of its layers can be replaced ({reasons})"
    else:
        cause = (
            "it has no layer of a type that is quantized, such as a convolution or nn.Linear; of an"
            " exported or traced model, pass the original"
        )
    raise InputError(f"model: has no layer to quantize: {cause}")
