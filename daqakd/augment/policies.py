"""The policies: which operations each image gets, drawn from Philox in integers alone.

Laws are torchvision's. A draw is an index into the policy's settings, whose rows are an operation
with its magnitude and sign; row 0 is the identity.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor

from .._errors import unknown
from ..functional._checks import check_semantics
from ..functional.augment import Settings
from . import draws
from .compositions import is_composition, parse
from .ranges import (
    AUGMIX,
    AUTOAUGMENT,
    ENHANCE,
    GEOMETRIC,
    IMAGE_OPS,
    RANDAUGMENT,
    TRIVIALAUGMENT,
    MagnitudeRanges,
)
from .settings import ImageContext, Setting, stack_settings
from .tables import TABLES, sub_policies

RANDAUGMENT_MAGNITUDES = slice(9, 10)
AUGMIX_MAGNITUDES = slice(0, 3)  # severity 3
MIXTURE_WIDTH, CHAIN_DEPTH = 3, 3  # of AugMix: chains, and the most operations of one
RANDAUGMENT_OPERATIONS = ("Identity", *GEOMETRIC, *ENHANCE, *IMAGE_OPS)  # TrivialAugment's, too
AUGMIX_OPERATIONS = (*GEOMETRIC, *IMAGE_OPS, *ENHANCE)


@dataclass(frozen=True)
class Policy:
    """Draws the operations of images from (seed, epoch, image); this one draws none."""

    settings: Settings

    def to(self, device: torch.device | str) -> Self:
        """Return the policy on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if hasattr(v, "to")})

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return a plan's ``setting`` and ``share`` for the images ``index`` int64 ``[R]``.

        Returns:
            The settings' rows, int16 ``[R, C, S]`` for C chains of S operations, and with more
            than one chain the weights of the image and of each chain, float32 ``[R, 1 + C]``.
        """
        return torch.empty((len(index), 1, 0), dtype=torch.int16, device=index.device), None


def _operation_words(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Return the random words of ``count`` operations per image: int64 ``[R, count, 4]``."""
    slots = draws.OPERATION + torch.arange(count, device=index.device)
    return draws.philox(seed, epoch, index[:, None], slots)


@dataclass(frozen=True)
class RandomOperations(Policy):
    """RandAugment and TrivialAugment: operations, magnitudes and signs, all drawn uniformly."""

    first_row: Tensor  # int64 [operations], the settings' row of the lowest magnitude
    num_magnitudes: Tensor  # int64 [operations]
    num_signs: Tensor  # int64 [operations], 1 or 2
    num_operations: int  # per image

    def rows(self, words: Tensor) -> Tensor:
        """Return the settings' rows ``[...]`` for random words ``[..., 4]``."""
        operation = draws.choose(words[..., 0], len(self.first_row))
        magnitude = draws.choose(words[..., 1], self.num_magnitudes[operation])
        sign = draws.choose(words[..., 2], self.num_signs[operation])
        return self.first_row[operation] + magnitude * self.num_signs[operation] + sign

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one chain of ``num_operations``."""
        words = _operation_words(seed, epoch, index, self.num_operations)
        return self.rows(words)[:, None].to(torch.int16), None


@dataclass(frozen=True)
class AugMix(RandomOperations):
    """AugMix (Hendrycks et al., ICLR 2020): three chains of one to three operations, alpha 1."""

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return three chains, filled up with the identity, and their weights."""
        number = torch.arange(2 + self.num_operations, device=index.device)
        # one call for all, whose time hardly depends on their number; WEIGHTS follows DEPTHS
        slots = torch.where(number < 2, draws.DEPTHS + number, draws.OPERATION - 2 + number)
        words = draws.philox(seed, epoch, index[:, None], slots)
        rows = self.rows(words[:, 2:]).view(-1, MIXTURE_WIDTH, CHAIN_DEPTH)
        depths = 1 + draws.choose(words[:, 0, :MIXTURE_WIDTH], CHAIN_DEPTH)
        used = torch.arange(CHAIN_DEPTH, device=index.device) < depths[:, :, None]
        return torch.where(used, rows, 0).to(torch.int16), self._weights(words[:, 1])

    def _weights(self, words: Tensor) -> Tensor:
        """Return the weights of the image and the chains: float32 ``[R, 4]``.

        The image's is Beta(1, 1); the rest is split by Dirichlet(1, 1, 1), the spacings of two
        uniform numbers.
        """
        u = draws.uniform(words)
        low, high = torch.minimum(u[:, 1], u[:, 2]), torch.maximum(u[:, 1], u[:, 2])
        chains = torch.stack([low, high - low, 1 - high], 1).float() * (1 - u[:, :1]).float()
        return torch.cat([u[:, :1].float(), chains], 1)


@dataclass(frozen=True)
class AutoAugment(Policy):
    """AutoAugment: one of 25 pairs of operations, each with its probability and a random sign."""

    first_row: Tensor  # int64 [25, 2], the settings' row of the positive magnitude
    num_signs: Tensor  # int64 [25, 2], 1 or 2
    threshold: Tensor  # int64 [25, 2], an operation is applied where a random word is below

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one chain of two."""
        words = _operation_words(seed, epoch, index, 2)
        pair = draws.choose(words[:, 0, 2], len(self.first_row))
        applied = words[..., 0] < self.threshold[pair]
        rows = self.first_row[pair] + draws.choose(words[..., 1], self.num_signs[pair])
        return torch.where(applied, rows, 0)[:, None].to(torch.int16), None


@dataclass(frozen=True)
class Composition(Policy):
    """The same operations and magnitudes for every image, with random signs."""

    first_row: Tensor  # int64 [S], the settings' row of the positive magnitude
    num_signs: Tensor  # int64 [S], 1 or 2

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one chain."""
        words = _operation_words(seed, epoch, index, len(self.first_row))
        rows = self.first_row + draws.choose(words[..., 2], self.num_signs)
        return rows[:, None].to(torch.int16), None


def _stack(groups: list[list[Setting]]) -> tuple[Settings, Tensor, Tensor]:
    """Return the settings of all groups, and each group's first row and length: int64 [groups]."""
    lengths = torch.tensor([len(group) for group in groups])
    first_row = 1 + lengths.cumsum(0) - lengths
    return stack_settings([setting for group in groups for setting in group]), first_row, lengths


def _choices(
    names: tuple[str, ...], ranges: MagnitudeRanges, bins: slice, context: ImageContext
) -> tuple[Settings, Tensor, Tensor, Tensor]:
    """Return what :class:`RandomOperations` draws from: its first four fields."""
    settings, first_row, lengths = _stack([ranges.settings(n, bins, context) for n in names])
    num_signs = torch.tensor([ranges.num_signs(name) for name in names])
    return settings, first_row, lengths // num_signs, num_signs


def _randaugment(context: ImageContext) -> Policy:
    choices = _choices(RANDAUGMENT_OPERATIONS, RANDAUGMENT, RANDAUGMENT_MAGNITUDES, context)
    return RandomOperations(*choices, num_operations=2)


def _trivialaugment(context: ImageContext) -> Policy:
    choices = _choices(RANDAUGMENT_OPERATIONS, TRIVIALAUGMENT, slice(None), context)
    return RandomOperations(*choices, num_operations=1)


def _augmix(context: ImageContext) -> Policy:
    # torchvision's AugMix turns PIL images into tensors
    context = ImageContext(context.height, context.width, "torchvision", bilinear=True)
    choices = _choices(AUGMIX_OPERATIONS, AUGMIX, AUGMIX_MAGNITUDES, context)
    return AugMix(*choices, num_operations=MIXTURE_WIDTH * CHAIN_DEPTH)


def _autoaugment(table: str, context: ImageContext) -> Policy:
    operations = [operation for pair in sub_policies(table) for operation in pair]
    settings, first_row, num_signs = _stack(
        [AUTOAUGMENT.settings(name, _one_bin(bin), context) for name, _, bin in operations]
    )
    # torchvision applies where rand() <= p
    threshold = torch.tensor([int(probability * 2**32) + 1 for _, probability, _ in operations])
    pairs = (values.view(-1, 2) for values in (first_row, num_signs, threshold))
    return AutoAugment(settings, *pairs)


def _composition(name: str, context: ImageContext) -> Policy:
    operations = parse(name)
    groups = [TRIVIALAUGMENT.settings(n, _one_bin(bin), context) for n, bin in operations]
    return Composition(*_stack(groups))


def _one_bin(bin: int | None) -> slice:
    """Return the slice of one magnitude; None is the index of an operation without any."""
    return slice(0, 1) if bin is None else slice(bin, bin + 1)


_BUILDERS: dict[str, Callable[[ImageContext], Policy]] = {
    "nothing": lambda context: Policy(stack_settings([])),
    "randaugment": _randaugment,
    "trivialaugment": _trivialaugment,
    "augmix": _augmix,
    **{f"autoaugment-{data}": partial(_autoaugment, table) for data, table in TABLES.items()},
}
POLICIES = tuple(_BUILDERS)


def policy(name: str, height: int, width: int, semantics: str = "pil") -> Policy:
    """Return a policy for images of a size.

    Args:
        name: ``"nothing"``, ``"randaugment"``, ``"trivialaugment"``, ``"augmix"``,
            ``"autoaugment-"`` with ``cifar``, ``imagenet`` or ``svhn``, or a composition.
        height: of the images in pixels.
        width: of the images in pixels.
        semantics: ``"pil"`` or ``"torchvision"``. AugMix uses torchvision's tensor kernels,
            bilinear, in both, as torchvision's own does with PIL images.

    Raises:
        InputError: no such policy or semantics.
    """
    context = ImageContext(height, width, check_semantics(semantics))
    if is_composition(name):
        return _composition(name, context)
    if name not in _BUILDERS:
        raise unknown("policy", name, list(POLICIES))
    return _BUILDERS[name](context)
