"""Models by name, or from a function of the user's own."""

from collections.abc import Callable

from torch import nn
from torch.nn.parameter import UninitializedParameter

from .._arguments import check_integer, imported
from .._errors import InputError, first_line, seen, unknown
from .outputs import check_logits, evaluating, forward_pass, logits_of
from .resnet import CIFARResNet
from .vgg import VGG

MOST_CLASSES = 2**24


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
    "resnet44": lambda classes: CIFARResNet(7, classes),
    "resnet44-headnorm": lambda classes: CIFARResNet(7, classes, head_norm=True),
    "resnet56": lambda classes: CIFARResNet(9, classes),
    "resnet56-headnorm": lambda classes: CIFARResNet(9, classes, head_norm=True),
    "vgg13": lambda classes: VGG((2, 2, 2, 2, 2), classes),
    "vgg8": lambda classes: VGG((1, 1, 1, 1, 1), classes),
}


def _guarded(name: str, function: Callable[..., nn.Module]) -> Callable[[int], nn.Module]:
    """Return a builder that says in one sentence what is wrong with ``function``."""

    def builder(classes: int) -> nn.Module:
        try:
            model = function(num_classes=classes)
        except (Exception, SystemExit) as error:  # whatever a user's function raises
            raise InputError(
                f"model {name!r}: {name}(num_classes={classes}) failed with {first_line(error)};"
                " mend it, or pass another --model"
            ) from error
        if not isinstance(model, nn.Module):
            raise InputError(
                f"model {name!r}: returned a {type(model).__name__}, expected a torch.nn.Module"
            )
        model = getattr(model, "_orig_mod", model)  # of torch.compile, whose names have a prefix
        lazy = [k for k, p in model.named_parameters() if isinstance(p, UninitializedParameter)]
        if lazy:
            raise InputError(
                f"model {name!r}: {lazy[0]} is lazy, so it has no weights yet; run the model once"
                " on a batch before its function returns it"
            )
        if any(p.is_meta for p in model.parameters()):
            raise InputError(
                f"model {name!r}: its weights are on the meta device, so they have no values; make"
                " them on the CPU"
            )
        return model

    return builder


def find(name: str) -> Callable[[int], nn.Module]:
    """Return the builder of a model: a name of ``BUILDERS`` or ``package.module:function``.

    The function is called with ``num_classes=`` and returns a module.

    Raises:
        InputError: there is no such model.
    """
    if not isinstance(name, str):
        raise InputError(
            f"model: expected a name or package.module:function, got {seen(name)}; pass a string"
        )
    if ":" in name:
        return _guarded(name, imported("model", name))
    if name not in BUILDERS and "." in name:
        module, _, attribute = name.rpartition(".")
        raise InputError(
            f"model {name!r}: no name of ours; a function of yours is {module}:{attribute}"
        )
    if name not in BUILDERS:
        raise unknown("model", name, list(BUILDERS))
    return BUILDERS[name]


def build(name: str, num_classes: int) -> nn.Module:
    """Return a freshly initialised model with ``num_classes`` outputs; see :func:`find`."""
    builder = find(name)
    check_integer("num_classes", num_classes, 1, MOST_CLASSES)
    return builder(num_classes)


__all__ = [
    "BUILDERS",
    "VGG",
    "CIFARResNet",
    "build",
    "check_logits",
    "evaluating",
    "find",
    "forward_pass",
    "logits_of",
]
