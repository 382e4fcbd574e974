"""Models by name."""

from collections.abc import Callable

from torch import nn

from .._errors import unknown
from .resnet import CIFARResNet

BUILDERS: dict[str, Callable[[int], nn.Module]] = {
    "resnet20": lambda classes: CIFARResNet(3, classes),
    "resnet32": lambda classes: CIFARResNet(5, classes),
}


def build(name: str, num_classes: int) -> nn.Module:
    """Return a freshly initialised model with ``num_classes`` outputs.

    Raises:
        InputError: the name is not one of ``BUILDERS``.
    """
    if name not in BUILDERS:
        raise unknown("model", name, list(BUILDERS))
    return BUILDERS[name](num_classes)


__all__ = ["BUILDERS", "CIFARResNet", "build"]
