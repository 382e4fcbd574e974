"""The candidates: named augmentations applied after crop and flip, and before normalisation."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from .._errors import InputError, seen, unknown
from .compositions import is_composition, parse

PAPER = (
    "autoaugment-cifar",
    "autoaugment-imagenet",
    "augmix",
    "cutmix",
    "minimal",
    "randaugment",
    "trivialaugment",
)
CUTMIX = "+cutmix"
RESERVED = ("", "auto")  # the command line's auto is the winner of a ranking

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class Strategy:
    """A named augmentation: what happens to each image, and what mixes the batch.

    ``policy`` names a built-in policy, unless ``transform`` takes its place: a callable on PIL
    images. ``mixing`` is None, ``"cutmix"`` or ``"mixup"``; ``erasing`` adds RandomErasing.
    """

    name: str
    policy: str = "nothing"
    transform: Transform | None = None
    mixing: str | None = None
    erasing: bool = False


_STRATEGIES = {
    s.name: s
    for s in (
        Strategy("autoaugment-cifar", "autoaugment-cifar"),
        Strategy("autoaugment-imagenet", "autoaugment-imagenet"),
        Strategy("autoaugment-svhn", "autoaugment-svhn"),
        Strategy("augmix", "augmix"),
        Strategy("cutmix", mixing="cutmix"),
        Strategy("minimal"),
        Strategy("mixup", mixing="mixup"),
        Strategy("randaugment", "randaugment"),
        Strategy("random-erasing", erasing=True),
        Strategy("trivialaugment", "trivialaugment"),
    )
}


def strategies() -> list[str]:
    """Return the names of all strategies; ``X+cutmix`` exists for each that mixes nothing yet."""
    return sorted(_STRATEGIES)


def register_strategy(name: str, transform: Transform) -> None:
    """Add a strategy: ``transform`` takes a PIL image and returns one, or a uint8 tensor.

    Any torchvision transform will do, v1 or v2. Draws come from torch's, Python's and NumPy's
    global generators, which are seeded for every image.

    Raises:
        InputError: the name is taken, ``auto`` or an operation's, or contains ``+`` or ``@``, or
            the transform is no callable.
    """
    if not isinstance(name, str):
        raise InputError(f"name: expected a string, got {seen(name)}")
    if name in _STRATEGIES or name in RESERVED or is_composition(name):
        raise InputError(
            f"name: {seen(name)} is taken or not allowed ('+' is for '+cutmix', '@' for"
            " magnitudes); choose another"
        )
    if not callable(transform):
        raise InputError(f"transform: expected a callable, got {seen(transform)}")
    _STRATEGIES[name] = Strategy(name, transform=transform)


def get_strategy(name: str) -> Strategy:
    """Return a strategy by name, ``X+cutmix`` included, or a composition: ``rotate@12+color@20``.

    Raises:
        InputError: there is no such strategy, operation or magnitude.
    """
    if not isinstance(name, str):
        raise InputError(f"strategy: expected a name, got {seen(name)}")
    base = name.removesuffix(CUTMIX)
    if base not in _STRATEGIES and is_composition(base):
        parse(base)
        return Strategy(name, base, mixing=None if base == name else "cutmix")
    if base not in _STRATEGIES:
        raise unknown("strategy", name, [*strategies(), f"trivialaugment{CUTMIX}"])
    strategy = _STRATEGIES[base]
    if base == name:
        return strategy
    if strategy.mixing is not None:
        raise InputError(f"strategy {name!r}: {base} mixes images already; use {base!r} alone")
    return replace(strategy, name=name, mixing="cutmix")
