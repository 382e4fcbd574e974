"""Data sets: by name, from a folder, or wrapped around anybody's map-style data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from .._errors import InputError, suggest
from .dataset import IMAGENET_MEAN, IMAGENET_STD, Dataset, Images, class_ranks, make
from .digits import read_digits
from .folder import read_tree
from .named import NAMED_STATISTICS, read_named

NAMES = ["cifar10", "cifar100", "digits", "tiny-imagenet"]


def load(
    name_or_path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name, or a folder ``train/<class>/*`` with ``test/`` or ``val/``.

    Args:
        name_or_path: ``"cifar10" "cifar100" "digits" "tiny-imagenet"`` or a folder. Named sets are
            looked for in ``DAQAKD_DATA`` (else ``~/.cache/daqakd``); CIFAR is downloaded there.
        mean: per-channel mean of inputs in [0, 1]; default: CIFAR's own, else ImageNet's.
        std: per-channel standard deviation; default as for ``mean``.
        size: resize images to this side; folders of mixed sizes need it.
        holdout: share of the training images of each class that never trains a model.
        seed: fixes which images are held out.

    Raises:
        InputError: no such name or folder, an unreadable image, an empty class, mixed sizes.
    """
    name = str(name_or_path)
    if name == "digits":
        classes, train, test = read_digits(size)
    elif name in NAMED_STATISTICS:
        classes, train, test = read_named(name, size)
    elif Path(name_or_path).is_dir():
        classes, train, test = read_tree(Path(name_or_path), size)
    else:
        raise InputError(
            f"{name_or_path}: no such folder or data set.{suggest(str(name_or_path), NAMES)}"
            f" Known data sets: {', '.join(NAMES)}; or a folder with train/<class>/* and"
            " test/<class>/*"
        )
    usual = NAMED_STATISTICS.get(name, (IMAGENET_MEAN, IMAGENET_STD))
    return make(
        Path(name_or_path).name,
        classes,
        train,
        test,
        mean=mean or usual[0],
        std=std or usual[1],
        holdout=holdout,
        seed=seed,
        flip=name != "digits",
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
        image = image.convert("RGB")
        if size is not None:
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
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
        mean=mean,
        std=std,
        holdout=holdout,
        seed=seed,
        flip=flip,
    )


__all__ = ["NAMES", "Dataset", "Images", "class_ranks", "load", "wrap"]
