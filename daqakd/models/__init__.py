"""Models by name, or from a function of the user's own."""

from collections.abc import Callable
from importlib import import_module

from torch import nn

from .._errors import InputError, unknown
from .resnet import CIFARResNet
from .vgg import VGG


def _torchvision(name: str) -> Callable[[int], nn.Module]:
    def builder(classes: int) -> nn.Module:
        from torchvision.models import get_model

        model: nn.Module = get_model(name, num_classes=classes)
        return model

    return builder


BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "resnet18": _torchvision("resnet18"),
    "resnet20": lambda classes: CIFARResNet(3, classes),
    "resnet20-headnorm": lambda classes: CIFARResNet(3, classes, head_norm=True),
    "resnet32": lambda classes: CIFARResNet(5, classes),
    "resnet32-headnorm": lambda classes: CIFARResNet(5, classes, head_norm=True),
    "vgg13": lambda classes: VGG((2, 2, 2, 2, 2), classes),
    "vgg8": lambda classes: VGG((1, 1, 1, 1, 1), classes),
}


def _import_builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that ``package.module:function`` names."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InputError(
            f"model {name!r}: {error}; expected package.module:function, importable from here"
        ) from error
    if not callable(function):
        raise InputError(f"model {name!r}: {attribute} is not callable")
    builder: Callable[..., nn.Module] = function
    return builder


def find(name: str) -> Callable[[int], nn.Module]:
    """Return the builder of a model: a name of ``BUILDERS`` or ``package.module:function``.

    The function is called with ``num_classes=`` and returns a module.

    Raises:
        InputError: there is no such model.
    """
    if ":" in name:
        function = _import_builder(name)
        return lambda classes: function(num_classes=classes)
    if name not in BUILDERS:
        raise unknown("model", name, list(BUILDERS))
    return BUILDERS[name]


def build(name: str, num_classes: int) -> nn.Module:
    """Return a freshly initialised model with ``num_classes`` outputs; see :func:`find`."""
    return find(name)(num_classes)


__all__ = ["BUILDERS", "VGG", "CIFARResNet", "build", "find"]
