"""Data sets: by name, from a folder, or wrapped around anybody's map-style data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from .._errors import InputError
from ..augment.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from .dataset import Dataset, Images, class_ranks, make
from .find import NAMES, find
from .preparing import prepare
from .resize import rgb_pixels


def load(
    name_or_path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name, from a folder of images, or from what :func:`prepare` wrote.

    Args:
        name_or_path: ``"cifar10" "cifar100" "digits" "tiny-imagenet"``, a folder
            ``train/<class>/*`` with ``test/`` or ``val/``, or a prepared directory, whose pixels
            are mapped from its files instead of read. Named sets are looked for in
            ``DAQAKD_DATA`` (else ``~/.cache/daqakd``); CIFAR is downloaded there.
        mean: per-channel mean of inputs in [0, 1]; default: CIFAR's own, else ImageNet's.
        std: per-channel standard deviation; default as for ``mean``.
        size: resize images to this side; folders of mixed sizes need it.
        holdout: share of the training images of each class that never trains a model.
        seed: fixes which images are held out.

    Raises:
        InputError: no such name or folder, an unreadable image, an empty class, mixed sizes.
    """
    found = find(name_or_path, size)
    return make(
        found.name,
        found.classes,
        found.train.read(),
        found.test.read(),
        inputs=InputSpec().with_changes(mean=mean or found.mean, std=std or found.std),
        holdout=holdout,
        seed=seed,
        flip=found.flip,
    )


def _gather(dataset: Any, size: int | None) -> Images:
    """Read a map-style data set of (PIL image or uint8 [C, H, W], int) into memory."""
    pixels, labels = [], []
    for i in range(len(dataset)):
        image, label = dataset[i]
        if isinstance(image, torch.Tensor):
            if image.dtype != torch.uint8 or image.dim() != 3:
                raise InputError(
                    f"item {i}: expected a PIL image or uint8 [C, H, W], got {image.dtype}"
                    f" {tuple(image.shape)}; remove the normalising transform"
                )
            image = Image.fromarray(image.permute(1, 2, 0).squeeze(2).numpy())
        pixels.append(torch.from_numpy(rgb_pixels(image, size)))
        labels.append(int(label))
    if len({p.shape for p in pixels}) != 1:
        raise InputError("dataset: images differ in size; pass size= to resize them")
    return Images(torch.stack(pixels), torch.tensor(labels))


def wrap(
    train: Any,
    test: Any,
    *,
    name: str = "wrapped",
    classes: Sequence[str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    flip: bool = True,
) -> Dataset:
    """Wrap map-style data sets of (image, label), such as torchvision's, read once into memory.

    Images are PIL images or ``uint8 [C, H, W]`` tensors, untransformed. See :func:`load` for the
    other arguments; ``classes`` defaults to ``train.classes`` or the labels as text.

    Raises:
        InputError: an item of another type, or mixed sizes without ``size``.
    """
    train_images, test_images = _gather(train, size), _gather(test, size)
    names = classes or getattr(train, "classes", None)
    if names is None:
        names = [str(y) for y in range(int(train_images.labels.max()) + 1)]
    return make(
        name,
        names,
        train_images,
        test_images,
        inputs=InputSpec().with_changes(mean=mean, std=std),
        holdout=holdout,
        seed=seed,
        flip=flip,
    )


__all__ = ["NAMES", "Dataset", "Images", "class_ranks", "load", "prepare", "wrap"]
