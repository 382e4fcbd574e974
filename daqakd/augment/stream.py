"""Augmented batches: a different draw per image, fixed by (seed, epoch, image index)."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from . import draws
from .mixing import boxes, cutmix, mixup
from .strategies import Strategy, Transform


@dataclass(frozen=True)
class Batch:
    """One batch: normalised images, labels, and the partners' labels where images are mixed."""

    images: Tensor  # float32 [B, 3, H, W]
    labels: Tensor  # int64 [B]
    index: Tensor  # int64 [B], on the CPU
    partner_labels: Tensor | None = None  # int64 [B]
    weight: Tensor | None = None  # float32 [B], the share of ``labels``

    def targets(self, num_classes: int) -> Tensor:
        """Return the labels, or for mixed images their probabilities ``[B, num_classes]``."""
        if self.partner_labels is None or self.weight is None:
            return self.labels
        rows = torch.zeros(len(self.labels), num_classes, device=self.labels.device)
        rows.scatter_(1, self.labels[:, None], self.weight[:, None])
        return rows.scatter_add_(1, self.partner_labels[:, None], 1 - self.weight[:, None])


@contextmanager
def _borrowed_generators() -> Iterator[None]:
    """Leave all global generators as they were; one thread, since the images are small."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(threads)
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002


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


class Stream:
    """Batches of one strategy over a fixed pool of images.

    Args:
        pixels: ``uint8 [N, 3, H, W]`` on the CPU.
        labels: ``int64 [N]``.
        strategy: what to apply.
        mean: per-channel mean of inputs in [0, 1].
        std: per-channel standard deviation.
        seed: of all draws.
        pool: the indices an epoch consists of, and CutMix partners come from; None for all.
        flip: whether to mirror half of the images.
        box: ``"image"`` draws a CutMix box per image; ``"batch"`` one per batch, as the papers do.
        workers: processes that augment; 0 augments in this one.
        device: of the batches.
    """

    def __init__(
        self,
        pixels: Tensor,
        labels: Tensor,
        strategy: Strategy,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
        pool: Tensor | None = None,
        flip: bool = True,
        box: str = "image",
        workers: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self.pixels, self.labels, self.strategy = pixels, labels, strategy
        self.mean = torch.tensor(mean, device=device).view(-1, 1, 1)
        self.std = torch.tensor(std, device=device).view(-1, 1, 1)
        self.seed, self.box, self.workers, self.device = seed, box, workers, device
        self.pool = torch.arange(len(labels)) if pool is None else pool
        self.transforms = self._transforms(flip)

    def _transforms(self, flip: bool) -> list[Transform]:
        from torchvision.transforms import RandomCrop, RandomHorizontalFlip

        size = self.pixels.shape[-1]
        chain: list[Transform] = [RandomCrop(size, padding=size // 8)]
        chain += [RandomHorizontalFlip()] if flip else []
        own = self.strategy.build()
        return chain if own is None else [*chain, own]

    def steps(self, batch_size: int) -> int:
        """Return the number of training batches in an epoch; an incomplete last one is dropped."""
        return max(len(self.pool) // batch_size, 1)

    def epoch(self, epoch: int, batch_size: int, start: int = 0) -> Iterator[Batch]:
        """Yield the training batches of an epoch in its order, from batch ``start`` on."""
        order = draws.permutation(self.seed, epoch, self.pool)
        chunks = order.split(batch_size)[: self.steps(batch_size)]
        yield from self.batches(epoch, chunks[start:])

    def batches(self, epoch: int, chunks: Sequence[Tensor]) -> Iterator[Batch]:
        """Yield one batch per tensor of image indices."""
        mixing = self.strategy.mixing is not None
        partners = self._partners(epoch) if mixing else None
        needed = [c if partners is None else torch.cat([c, partners[c]]).unique() for c in chunks]
        augmented = _Augmented(self.pixels, self.transforms, self.seed, epoch)
        loader: Any = DataLoader(
            augmented,
            sampler=needed,
            batch_size=None,
            num_workers=self.workers,
            generator=torch.Generator(),  # or the loader draws from the global one
            multiprocessing_context="fork" if self.workers else None,
        )
        for chunk, have, pixels in zip(chunks, needed, loader, strict=True):
            if partners is None:
                yield self._batch(chunk, self._normalise(pixels))
            else:
                yield self._mixed(epoch, chunk, partners[chunk], have, self._normalise(pixels))

    def _partners(self, epoch: int) -> Tensor:
        """Return each image's partner: the next one in the epoch's order."""
        order = draws.permutation(self.seed, epoch, self.pool)
        partners = torch.full((len(self.labels),), -1)
        partners[order] = order.roll(-1)
        return partners

    def _normalise(self, pixels: Tensor) -> Tensor:
        return (pixels.to(self.device).float() / 255 - self.mean) / self.std

    def _batch(self, chunk: Tensor, images: Tensor) -> Batch:
        return Batch(images, self.labels[chunk].to(self.device), chunk)

    def _mixed(
        self, epoch: int, chunk: Tensor, partners: Tensor, have: Tensor, images: Tensor
    ) -> Batch:
        own = images[torch.searchsorted(have, chunk).to(self.device)]
        other = images[torch.searchsorted(have, partners).to(self.device)]
        drawn_by = chunk if self.box == "image" else chunk[:1].expand_as(chunk)
        if self.strategy.mixing == "cutmix":
            box = boxes(self.seed, epoch, drawn_by, images.shape[-1]).to(self.device)
            mixed, weight = cutmix(own, other, box)
        else:
            words = draws.philox(self.seed, epoch, drawn_by, draws.BOX)
            weight = draws.uniform(words)[:, 0].float().to(self.device)
            mixed = mixup(own, other, weight)
        labels, partner_labels = self.labels[chunk], self.labels[partners]
        return Batch(mixed, labels.to(self.device), chunk, partner_labels.to(self.device), weight)
