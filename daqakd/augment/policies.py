"""The policies: which operations each image gets, drawn from Philox in integers alone.

Laws are torchvision's. Rows of the settings stand for an operation, its magnitude and its sign.
"""

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor

from .._errors import unknown
from ..functional._checks import SEMANTICS
from ..functional.augment import Settings
from . import draws
from .compositions import is_composition, parse
from .ranges import AUGMIX, AUTOAUGMENT, BASIC, ENHANCE, OTHER, RANDAUGMENT, TRIVIALAUGMENT, Ranges
from .settings import Canvas, table
from .tables import TABLES, sub_policies

CHAINS, DEPTH = 3, 3  # AugMix
SEVERITY = slice(0, 3)
RANDAUGMENT_BIN = slice(9, 10)


@dataclass(frozen=True)
class Policy:
    """Draws the operations of images from (seed, epoch, image); this one none at all."""

    settings: Settings

    def to(self, device: torch.device | str) -> Self:
        """Return the policy on a device."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{k: v.to(device) for k, v in values.items() if hasattr(v, "to")})

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return ``setting`` int16 ``[R, C, S]`` and ``share``, as in a plan, for int64 ``[R]``."""
        return torch.empty((len(index), 1, 0), dtype=torch.int16, device=index.device), None


def _operation_words(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Return the words of ``count`` slots: int64 ``[R, count, 4]``."""
    slots = draws.OPERATION + torch.arange(count, device=index.device)
    return draws.philox(seed, epoch, index[:, None], slots)


@dataclass(frozen=True)
class Menu(Policy):
    """Operations, of which a slot draws one uniformly, then its magnitude and its sign."""

    first: Tensor  # int64 [operations], the row of the lowest magnitude
    bins: Tensor  # int64 [operations]
    signs: Tensor  # int64 [operations], 1 or 2
    slots: int

    def rows(self, words: Tensor) -> Tensor:
        """Return the settings' rows for words ``[..., 4]``."""
        which = draws.choose(words[..., 0], len(self.first))
        magnitude = draws.choose(words[..., 1], self.bins[which])
        sign = draws.choose(words[..., 2], self.signs[which])
        return self.first[which] + magnitude * self.signs[which] + sign

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one chain."""
        words = _operation_words(seed, epoch, index, self.slots)
        return self.rows(words)[:, None].to(torch.int16), None


@dataclass(frozen=True)
class Mixture(Menu):
    """AugMix (Hendrycks et al., ICLR 2020): three chains of one to three operations, alpha 1."""

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return three chains and their shares."""
        number = torch.arange(2 + self.slots, device=index.device)
        # one call for all, whose time hardly depends on their number; SHARES follows DEPTHS
        slots = torch.where(number < 2, draws.DEPTHS + number, draws.OPERATION - 2 + number)
        words = draws.philox(seed, epoch, index[:, None], slots)
        rows = self.rows(words[:, 2:]).view(-1, CHAINS, DEPTH)
        depths = 1 + draws.choose(words[:, 0, :CHAINS], DEPTH)
        used = torch.arange(DEPTH, device=index.device) < depths[:, :, None]
        return torch.where(used, rows, 0).to(torch.int16), self._shares(words[:, 1])

    def _shares(self, words: Tensor) -> Tensor:
        """Return Beta(1, 1) for the image, the rest split by Dirichlet(1, 1, 1): its spacings."""
        u = draws.uniform(words)
        low, high = torch.minimum(u[:, 1], u[:, 2]), torch.maximum(u[:, 1], u[:, 2])
        chains = torch.stack([low, high - low, 1 - high], 1).float() * (1 - u[:, :1]).float()
        return torch.cat([u[:, :1].float(), chains], 1)


@dataclass(frozen=True)
class SubPolicies(Policy):
    """AutoAugment: one of 25 pairs of operations, each with its probability and a random sign."""

    first: Tensor  # int64 [25, 2], row of the positive magnitude
    signs: Tensor  # int64 [25, 2], 1 or 2
    below: Tensor  # int64 [25, 2]; of the words, those below it apply the operation

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one chain of two."""
        words = _operation_words(seed, epoch, index, 2)
        which = draws.choose(words[:, 0, 2], len(self.first))
        applied = words[..., 0] < self.below[which]
        rows = self.first[which] + draws.choose(words[..., 1], self.signs[which])
        return torch.where(applied, rows, 0)[:, None].to(torch.int16), None


@dataclass(frozen=True)
class Fixed(Policy):
    """A composition: the same operations and magnitudes for every image, with random signs."""

    first: Tensor  # int64 [S], row of the positive magnitude
    signs: Tensor  # int64 [S], 1 or 2

    def draw(self, seed: int, epoch: int, index: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return one chain."""
        words = _operation_words(seed, epoch, index, len(self.first))
        rows = self.first + draws.choose(words[..., 2], self.signs)
        return rows[:, None].to(torch.int16), None


def _menu(
    kind: type[Menu], names: tuple[str, ...], ranges: Ranges, bins: slice, on: Canvas, slots: int
) -> Menu:
    groups = [ranges.rows(name, bins, on) for name in names]
    signs = torch.tensor([ranges.signs(name) for name in names])
    counts = torch.tensor([len(group) for group in groups])
    first = 1 + counts.cumsum(0) - counts
    return kind(table([r for group in groups for r in group]), first, counts // signs, signs, slots)


def _sub_policies(text: str, on: Canvas) -> SubPolicies:
    operations = [operation for pair in sub_policies(text) for operation in pair]
    bins = [slice(0, 1) if bin is None else slice(bin, bin + 1) for _, _, bin in operations]
    groups = [
        AUTOAUGMENT.rows(name, own, on) for (name, _, _), own in zip(operations, bins, strict=True)
    ]
    signs = torch.tensor([len(group) for group in groups])
    first = 1 + signs.cumsum(0) - signs
    # torchvision applies where rand() <= p
    below = torch.tensor([int(probability * 2**32) + 1 for _, probability, _ in operations])
    pairs = (values.view(-1, 2) for values in (first, signs, below))
    return SubPolicies(table([r for group in groups for r in group]), *pairs)


def _fixed(name: str, on: Canvas) -> Fixed:
    groups = [TRIVIALAUGMENT.rows(n, slice(bin, bin + 1), on) for n, bin in parse(name)]
    signs = torch.tensor([len(group) for group in groups])
    first = 1 + signs.cumsum(0) - signs
    return Fixed(table([r for group in groups for r in group]), first, signs)


def policy(name: str, height: int, width: int, semantics: str = "pil") -> Policy:
    """Return a policy for images of a size.

    Args:
        name: ``"nothing"``, ``"randaugment"``, ``"trivialaugment"``, ``"augmix"``,
            ``"autoaugment-"`` with ``cifar``, ``imagenet`` or ``svhn``, or a composition.
        height: of the images.
        width: of the images.
        semantics: ``"pil"`` or ``"torchvision"``. AugMix uses torchvision's tensor kernels,
            bilinear, in both, as torchvision's own does with PIL images.

    Raises:
        InputError: no such policy or semantics.
    """
    if semantics not in SEMANTICS:
        raise unknown("semantics", semantics, list(SEMANTICS))
    on = Canvas(height, width, semantics)
    full = slice(None)
    fourteen = ("Identity", *BASIC, *ENHANCE, *OTHER)
    if name == "nothing":
        return Policy(table([]))
    if name == "trivialaugment":
        return _menu(Menu, fourteen, TRIVIALAUGMENT, full, on, 1)
    if name == "randaugment":
        return _menu(Menu, fourteen, RANDAUGMENT, RANDAUGMENT_BIN, on, 2)
    if name == "augmix":
        on = Canvas(height, width, "torchvision", bilinear=True)
        return _menu(Mixture, (*BASIC, *OTHER, *ENHANCE), AUGMIX, SEVERITY, on, CHAINS * DEPTH)
    if is_composition(name):
        return _fixed(name, on)
    data = name.removeprefix("autoaugment-")
    if data not in TABLES or data == name:
        raise unknown("policy", name, list(POLICIES))
    return _sub_policies(TABLES[data], on)


POLICIES = (
    "nothing",
    "randaugment",
    "trivialaugment",
    "augmix",
    *(f"autoaugment-{data}" for data in TABLES),
)
