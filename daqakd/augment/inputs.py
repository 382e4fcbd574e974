"""``InputSpec``: how pixels become what a network sees, from the data set into the model file."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, get_args

from .._errors import InputError, seen, unknown
from ..functional._checks import SEMANTICS, Semantics
from .pipeline import ResizedCrop

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LARGEST = 2.0**40  # mean and deviation, and 1 / deviation: beyond, float32 inputs are not finite
Channels = tuple[float, float, float]
Clean = Literal["middle", "whole"]
CLEAN: tuple[Clean, ...] = get_args(Clean)


def three_channels(name: str, values: Sequence[float]) -> Channels:
    """Return one number per channel as floats, so that equal specs read the same."""
    try:
        channels = tuple(float(v) for v in values)
    except (TypeError, ValueError, OverflowError):
        channels = ()
    fits = len(channels) == 3 and all(abs(v) <= LARGEST for v in channels)
    if not fits or (name == "std" and min(channels) < 1 / LARGEST):
        wanted = "three positive numbers" if name == "std" else "three numbers"
        raise InputError(
            f"{name}: expected {wanted}, one per channel in [0, 1], got {seen(values)}"
        )
    red, green, blue = channels
    return red, green, blue


@dataclass(frozen=True)
class InputSpec:
    """How uint8 pixels become a network's inputs; the same for ranking, training and evaluation.

    Attributes:
        mean: per-channel mean of inputs in [0, 1].
        std: per-channel standard deviation.
        pipeline: random-resized-crop and colour jitter before the strategy; None for a padded
            random crop. Clean images are resized to its size (:func:`daqakd.augment.clean`).
        semantics: ``"pil"`` or ``"torchvision"``, whose pixels image operations equal.
        clean: what a pipeline leaves of clean images, resized to 8/7 of its size: the ``"middle"``
            of its own size, or the ``"whole"`` of them, as the code of [DAQAKD] evaluates Tiny
            ImageNet (256 x 256 after crops of 224).

    Raises:
        InputError: a value that cannot be meant.
    """

    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    pipeline: ResizedCrop | None = None
    semantics: Semantics = "pil"
    clean: Clean = "middle"

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            object.__setattr__(self, name, three_channels(name, getattr(self, name)))
        if self.pipeline is not None and not isinstance(self.pipeline, ResizedCrop):
            kind = type(self.pipeline).__name__
            raise InputError(f"pipeline: expected a daqakd.ResizedCrop or None, got {kind}")
        if self.semantics not in SEMANTICS:
            raise unknown("semantics", str(self.semantics), list(SEMANTICS))
        if self.clean not in CLEAN:
            raise unknown("clean", str(self.clean), list(CLEAN))

    def with_changes(self, **changes: Any) -> Self:
        """Return the spec with other values; ``mean`` and ``std`` of None stay as they are."""
        for name in changes.keys() - vars(self).keys():
            raise unknown("option", name, [*vars(self)])
        kept = {k for k in ("mean", "std") if k in changes and changes[k] is None}
        return replace(self, **{k: v for k, v in changes.items() if k not in kept})

    def sides(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what the network sees of images of this size."""
        return (height, width) if self.pipeline is None else (self.pipeline.size,) * 2

    def describe(self) -> str:
        """Say how training images are made, as checkpoints note it."""
        crops = f"{self.pipeline or 'padded crops'} ({self.semantics})"
        return crops if self.clean == "middle" else f"{crops}, clean images {self.clean}"
