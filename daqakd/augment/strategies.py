"""The candidates: named augmentations applied after crop and flip, and before normalisation."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .._errors import InputError, unknown

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

Transform = Callable[[Any], Any]


@dataclass(frozen=True)
class Strategy:
    """A named augmentation: how to build its image transform, and what mixes the batch.

    ``build()`` returns a callable on PIL images, or None for nothing beyond crop and flip.
    ``mixing`` is None, ``"cutmix"`` or ``"mixup"``.
    """

    name: str
    build: Callable[[], Transform | None]
    mixing: str | None = None


def _autoaugment(policy: str) -> Callable[[], Transform]:
    def build() -> Transform:
        from torchvision.transforms import AutoAugment, AutoAugmentPolicy

        return AutoAugment(AutoAugmentPolicy[policy])

    return build


def _named(name: str) -> Callable[[], Transform]:
    def build() -> Transform:
        import torchvision.transforms

        return getattr(torchvision.transforms, name)()

    return build


def _random_erasing() -> Transform:
    from torchvision.transforms import Compose, PILToTensor, RandomErasing

    return Compose([PILToTensor(), RandomErasing(0.5, (0.02, 0.33), (0.3, 3.3), 0)])


def _nothing() -> None:
    return None


_STRATEGIES = {
    s.name: s
    for s in (
        Strategy("autoaugment-cifar", _autoaugment("CIFAR10")),
        Strategy("autoaugment-imagenet", _autoaugment("IMAGENET")),
        Strategy("autoaugment-svhn", _autoaugment("SVHN")),
        Strategy("augmix", _named("AugMix")),
        Strategy("cutmix", _nothing, "cutmix"),
        Strategy("minimal", _nothing),
        Strategy("mixup", _nothing, "mixup"),
        Strategy("randaugment", _named("RandAugment")),
        Strategy("random-erasing", _random_erasing),
        Strategy("trivialaugment", _named("TrivialAugmentWide")),
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
        InputError: the name is taken or contains ``+``, or the transform is not callable.
    """
    if name in _STRATEGIES or "+" in name or not name:
        raise InputError(f"name: {name!r} is taken or not allowed ('+' is for '+cutmix')")
    if not callable(transform):
        raise InputError(f"transform: expected a callable, got {type(transform).__name__}")
    _STRATEGIES[name] = Strategy(name, lambda: transform)


def get_strategy(name: str) -> Strategy:
    """Return a strategy by name, ``X+cutmix`` included.

    Raises:
        InputError: there is no such strategy.
    """
    base = name.removesuffix(CUTMIX)
    if base not in _STRATEGIES:
        raise unknown("strategy", name, [*strategies(), f"trivialaugment{CUTMIX}"])
    strategy = _STRATEGIES[base]
    if base == name:
        return strategy
    if strategy.mixing is not None:
        raise InputError(f"strategy {name!r}: {base} mixes images already; use {base!r} alone")
    return Strategy(name, strategy.build, "cutmix")
