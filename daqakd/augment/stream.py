"""Augmented batches: a different draw per image, fixed by (seed, epoch, image index)."""

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from .._errors import InputError, unknown
from ..functional.augment import Plan, augment
from . import draws
from .inputs import InputSpec
from .pipeline import ResizedCrop
from .plan import Planner, normalised_values
from .policies import policy
from .strategies import Strategy, Transform

CROP_FRACTION = 8  # a random crop has room for an eighth of the side: 4 pixels of 32
DRAWN_ROWS = 2**13  # drawn at once
BOXES = ("image", "batch")


@dataclass(frozen=True)
class Batch:
    """One batch: normalised images, labels, and the partners' labels where images are mixed."""

    images: Tensor  # float32 [B, 3, H, W]
    labels: Tensor  # int64 [B]
    index: Tensor  # int64 [B], on the CPU
    partner_labels: Tensor | None = None  # int64 [B]
    weight: Tensor | None = None  # float32 [B], of ``labels``

    def targets(self, num_classes: int) -> Tensor:
        """Return the labels, or for mixed images their probabilities ``[B, num_classes]``."""
        if self.partner_labels is None or self.weight is None:
            return self.labels
        rows = torch.zeros(len(self.labels), num_classes, device=self.labels.device)
        rows.scatter_(1, self.labels[:, None], self.weight[:, None])
        return rows.scatter_add_(1, self.partner_labels[:, None], 1 - self.weight[:, None])

    def split(self, parts: int) -> list["Batch"]:
        """Return the batch in so many consecutive parts, as equal as its size allows."""
        missing = [None] * parts
        fields = (missing if v is None else v.tensor_split(parts) for v in vars(self).values())
        return [Batch(*values) for values in zip(*fields, strict=True)]


def _and_partners(chunk: Tensor, partners: Tensor) -> Tensor:
    """Return a batch's images, then those of their partners that are not among them."""
    wanted = partners[chunk].unique()
    return torch.cat([chunk, wanted[~torch.isin(wanted, chunk)]])


def _places(index: Tensor, wanted: Tensor) -> Tensor:
    """Return where in ``index`` each value of ``wanted`` stands."""
    values, order = index.sort()
    return order[torch.searchsorted(values, wanted)]


class _Augmented(TorchDataset[Tensor]):
    """Items are whole batches: indices in, uint8 pixels out."""

    def __init__(self, pixels: Tensor, transforms: list[Transform], seed: int, epoch: int) -> None:
        self.pixels, self.transforms = pixels, transforms
        self.seed, self.epoch = seed, epoch

    def _one(self, index: int, seed: int) -> Tensor:
        torch.default_generator.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed & 0xFFFFFFFF)  # noqa: NPY002  transforms of users draw from it
        image: Any = Image.fromarray(self.pixels[index].permute(1, 2, 0).numpy())
        for transform in self.transforms:
            image = transform(image)
        if isinstance(image, Tensor):
            return image
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)

    def __getitem__(self, indices: Tensor) -> Tensor:
        seeds = draws.image_seeds(self.seed, self.epoch, indices)
        python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
        with torch.random.fork_rng(devices=[]):
            batch = [
                self._one(*pair) for pair in zip(indices.tolist(), seeds.tolist(), strict=True)
            ]
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        return torch.stack(batch)


def fits_on(pixels: Tensor, device: torch.device) -> bool:
    """Return whether a device has room for all pixels beside the models, or has them already."""
    if device.type in ("cpu", pixels.device.type):
        return True
    return pixels.nbytes <= torch.cuda.mem_get_info(device)[0] // 2


def _check(pixels: Tensor, labels: Tensor, strategy: Strategy, inputs: InputSpec, box: str) -> None:
    """Raise InputError for arguments of another type, shape or dtype."""
    for name, value, kind in (
        ("pixels", pixels, Tensor),
        ("labels", labels, Tensor),
        ("strategy", strategy, Strategy),
        ("inputs", inputs, InputSpec),
    ):
        if not isinstance(value, kind):
            raise InputError(f"{name}: expected a {kind.__name__}, got {type(value).__name__}")
    if pixels.dtype != torch.uint8 or pixels.dim() != 4 or pixels.shape[1] != 3:
        seen = f"{pixels.dtype} {list(pixels.shape)}"
        raise InputError(f"pixels: expected uint8 [N, 3, H, W], got {seen}")
    if labels.dtype != torch.int64 or labels.shape != pixels.shape[:1]:
        seen = f"{labels.dtype} {list(labels.shape)}"
        raise InputError(f"labels: expected int64 [{len(pixels)}], got {seen}")
    if box not in BOXES:
        raise unknown("box", str(box), list(BOXES))


class Stream:
    """Batches of one strategy over a fixed pool of images.

    Args:
        pixels: ``uint8 [N, 3, H, W]``, which may be mapped from a file; never written.
        labels: ``int64 [N]``.
        strategy: what to apply.
        inputs: crop, jitter, semantics of the operations, mean and standard deviation.
        seed: of all draws; 64 bits.
        pool: the indices an epoch consists of, and CutMix partners come from; None for all.
        flip: whether to mirror half of the images.
        box: ``"image"`` draws a CutMix box per image; ``"batch"`` one per batch, as the papers do.
        workers: processes that run a registered transform; 0 runs it in this one.
        device: of the batches.
        resident: whether to keep all pixels on ``device``, else a batch's are taken there; None
            keeps them where they fill at most half of a GPU's free memory.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        strategy: Strategy,
        *,
        inputs: InputSpec,
        seed: int,
        pool: Tensor | None = None,
        flip: bool = True,
        box: str = "image",
        workers: int = 0,
        device: torch.device | str = "cpu",
        resident: bool | None = None,
    ) -> None:
        _check(pixels, labels, strategy, inputs, box)
        draws.check_seed(seed)
        self.labels, self.strategy, self.device = labels, strategy, device
        fits = fits_on(pixels, torch.device(device)) if resident is None else resident
        self.resident = fits and strategy.transform is None
        self.pixels = pixels.to(device) if self.resident else pixels
        self.seed, self.workers, self.flip = seed, workers, flip
        self.pool = torch.arange(len(labels)) if pool is None else pool
        self.inputs, self.pipeline = inputs, inputs.pipeline
        height, width = inputs.sides(*pixels.shape[-2:])
        self.planner = Planner(
            policy(strategy.policy, height, width, inputs.semantics).to(device),
            height=height,
            width=width,
            pad=0 if inputs.pipeline else width // CROP_FRACTION,
            flip=flip,
            erasing=strategy.erasing,
            mixing=strategy.mixing,
            box=box,
            values=normalised_values(inputs.mean, inputs.std).to(device),
            seed=seed,
        )

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch; an incomplete last one is dropped."""
        return max(len(self.pool) // batch_size, 1)

    def epoch(
        self,
        epoch: int,
        batch_size: int,
        start: int = 0,
        share: Callable[[Tensor], Tensor] | None = None,
    ) -> Iterator[Batch]:
        """Yield the training batches of an epoch in its order, from batch ``start`` on.

        ``share`` returns what to take of a batch's indices; None takes all.
        """
        order = draws.permutation(self.seed, epoch, self.pool)
        chunks = order.split(batch_size)[start : self.steps(batch_size)]
        yield from self.batches(epoch, chunks if share is None else [share(c) for c in chunks])

    def batches(self, epoch: int, chunks: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch per tensor of image indices."""
        partners = None if self.strategy.mixing is None else self._partners(epoch)
        rows = [c if partners is None else _and_partners(c, partners) for c in chunks]
        plans = self._plans(epoch, chunks, rows, partners)
        for chunk, images, plan in zip(chunks, self._taken(epoch, rows), plans, strict=True):
            whole = plan if images is None else self._of_images(plan, epoch, images)
            source = self.pixels if images is None else images
            yield self._batch(chunk, augment(source, whole), partners, whole.weight)

    def _plans(
        self,
        epoch: int,
        chunks: Sequence[Tensor],
        rows: Sequence[Tensor],
        partners: Tensor | None,
    ) -> Iterator[Plan]:
        """Yield the batches' plans, drawn for many batches at once: a draw is hundreds of calls."""
        at_once = max(1, DRAWN_ROWS // max(map(len, rows), default=1))
        for start in range(0, len(rows), at_once):
            some = slice(start, start + at_once)
            places = None
            if partners is not None:
                pairs = zip(rows[some], chunks[some], strict=True)
                places = [_places(index, partners[chunk]).to(self.device) for index, chunk in pairs]
            index = torch.cat([*rows[some]]).to(self.device)
            yield from self.planner.plans(epoch, index.split([*map(len, rows[some])]), places)

    def _partners(self, epoch: int) -> Tensor:
        """Return each image's partner: the next one in the epoch's order."""
        order = draws.permutation(self.seed, epoch, self.pool)
        partners = torch.full((len(self.labels),), -1)
        partners[order] = order.roll(-1)
        return partners

    def _taken(self, epoch: int, rows: Sequence[Tensor]) -> Iterator[Tensor | None]:
        """Yield the pixels of ``rows`` on the device, or None where all are there already."""
        if self.strategy.transform:
            return self._transformed(epoch, rows)
        if self.pipeline:
            return (self._cropped(self.pipeline, epoch, index) for index in rows)
        if self.resident:
            return repeat(None, len(rows))
        return (self.pixels[index].to(self.device) for index in rows)

    def _cropped(self, pipeline: ResizedCrop, epoch: int, index: Tensor) -> Tensor:
        images = index.to(self.device)
        rows = images if self.resident else torch.arange(len(index), device=self.device)
        source = self.pixels if self.resident else self.pixels[index].to(self.device)
        return pipeline.apply(source, rows, self.seed, epoch, images, self.inputs.semantics)

    def _of_images(self, plan: Plan, epoch: int, images: Tensor) -> Plan:
        """Return the plan for a batch's own pixels.

        Transformed images, of any size, need only to be mixed and normalised.
        """
        if self.strategy.transform:
            height, width = images.shape[-2:]
            planner = replace(self.planner, height=height, width=width, pad=0, flip=False)
            plan = planner.plan(epoch, plan.index, plan.partner)
        return replace(plan, index=torch.arange(len(images), device=plan.index.device))

    def _transformed(self, epoch: int, rows: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yield the images of ``rows`` as the registered transform makes them, in workers."""
        loader: Any = DataLoader(
            _Augmented(self.pixels, self._transforms(), self.seed, epoch),
            sampler=rows,
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),  # or the loader draws from the global one
            multiprocessing_context="fork" if self.workers else None,
        )
        for images in loader:
            yield images.to(self.device)

    def _transforms(self) -> list[Transform]:
        from torchvision.transforms import RandomCrop, RandomHorizontalFlip

        size, flip = self.pixels.shape[-1], [RandomHorizontalFlip()] if self.flip else []
        chain: list[Transform] = [RandomCrop(size, padding=size // CROP_FRACTION), *flip]
        if self.pipeline:
            first, *rest = self.pipeline.transforms()
            chain = [first, *flip, *rest]
        return chain if self.strategy.transform is None else [*chain, self.strategy.transform]

    def _batch(
        self, chunk: Tensor, images: Tensor, partners: Tensor | None, weight: Tensor | None
    ) -> Batch:
        labels = self.labels[chunk].to(self.device)
        if partners is None:
            return Batch(images, labels, chunk)
        return Batch(images, labels, chunk, self.labels[partners[chunk]].to(self.device), weight)
