"""Taps: the places in a model whose values the losses of feature distillation compare.

A tap is the name of a module, for its output, or ``name:input`` for the first thing it is given.
"""

from typing import Any

from torch import nn

from .._errors import InputError, suggest
from .resnet import CIFARResNet
from .vgg import VGG

# from the first map to the pooled features, as the CIFAR papers count them: f0, f1, ...
CIFAR_RESNET = ("layer1:input", "layer1", "layer2", "layer3", "head_norm:input")
CIFAR_VGG = (*(f"groups.{number}" for number in range(5)), "classifier:input")
TORCHVISION: dict[str, tuple[str, ...]] = {
    "torchvision.models.resnet.ResNet": (
        "layer1:input",
        *(f"layer{number}" for number in range(1, 5)),
        "fc:input",
    ),
    "torchvision.models.mobilenetv2.MobileNetV2": (  # the last block of each resolution
        *(f"features.{number}" for number in (1, 3, 6, 13, 18)),
        "classifier:input",
    ),
}


def _kinds(model: nn.Module) -> list[str]:
    return [f"{kind.__module__}.{kind.__qualname__}" for kind in type(model).__mro__]


def taps_of(model: nn.Module) -> tuple[str, ...]:
    """Return a named model's taps, quantized or not: maps from first to last, then the features.

    Raises:
        InputError: it is a model of the user's own.
    """
    if isinstance(model, CIFARResNet):
        return CIFAR_RESNET
    if isinstance(model, VGG):
        return CIFAR_VGG
    found = [TORCHVISION[kind] for kind in _kinds(model) if kind in TORCHVISION]
    if not found:
        raise InputError(
            f"taps: {type(model).__name__} has no known ones; name the modules to compare, such as"
            f" taps={_examples(model)}"
        )
    return found[0]


def _examples(model: nn.Module) -> str:
    names = [name for name, child in model.named_children() if [*child.parameters()]]
    return repr(names[:2] or ["layer1", "layer2"])


def split_tap(tap: str) -> tuple[str, bool]:
    """Return a tap's module, and whether it is the module's input."""
    name, colon, side = tap.partition(":")
    if colon and side != "input":
        raise InputError(f"taps: {tap!r} names no side of a module; write {name}:input, or {name}")
    return name, bool(colon)


def module_at(model: nn.Module, tap: str) -> Any:
    """Return the module that a tap is at.

    Raises:
        InputError: there is none.
    """
    name, _ = split_tap(tap)
    named = dict(model.named_modules())
    if name not in named or not name:
        raise InputError(
            f"taps: {type(model).__name__} has no module {name!r}.{suggest(name, [*named])} Its"
            " named_modules() lists them"
        )
    return named[name]
