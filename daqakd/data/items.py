"""Anybody's map-style data set of (image, label), read once into memory."""

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .._errors import InputError, seen
from .dataset import Images
from .resize import rgb_pixels


def _image(image: Any, name: str) -> Image.Image:
    """Return an item's image; ``name`` says which item."""
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, Tensor):
        raise InputError(
            f"{name}: expected a PIL image or uint8 [C, H, W], got {type(image).__name__}; return"
            " the image as it is stored"
        )
    fits = image.dtype == torch.uint8 and image.dim() == 3 and 1 <= image.shape[0] <= 4
    if not fits or image.numel() == 0:
        raise InputError(
            f"{name}: expected a PIL image or uint8 [C, H, W], got {image.dtype}"
            f" {tuple(image.shape)}; remove the normalising transform, channels come first"
        )
    return Image.fromarray(image.permute(1, 2, 0).squeeze(2).cpu().numpy())


def _label(label: Any, name: str, below: int, limit: str) -> int:
    try:
        index = operator.index(label)
    except TypeError:
        index = -1
    if not 0 <= index < below:
        raise InputError(
            f"{name}: expected an integer label from 0 below {below}, the number of {limit}, got"
            f" {seen(label)}"
        )
    return index


def _item(dataset: Any, index: int, split: str) -> tuple[Any, Any, str]:
    name, item = f"{split}: item {index}", dataset[index]
    try:
        image, label = item
    except (TypeError, ValueError) as error:
        kind = type(item).__name__
        raise InputError(f"{name}: expected (image, label), got {kind} ({error})") from error
    return image, label, name


def check_classes(names: Any) -> None:
    """Raise InputError for what are no names of classes."""
    listed = isinstance(names, Sequence) and not isinstance(names, str)
    if not listed or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"classes: expected a list of names, got {seen(names)}")
    if len({*names}) < len(names):
        raise InputError(f"classes: expected different names, got {seen(names)}")


def gather(dataset: Any, split: str, size: int | None, num_classes: int | None) -> Images:
    """Read a data set of (PIL image or uint8 [C, H, W], int) into memory.

    Args:
        dataset: has a length and items.
        split: its name, for errors.
        size: as for :func:`daqakd.data.load`.
        num_classes: labels are below it; None for any that leave no more classes than images.

    Raises:
        InputError: no items, an item of another kind, or mixed sizes without ``size``.
    """
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or len(dataset) == 0:
        what = "an empty one" if hasattr(dataset, "__len__") else type(dataset).__name__
        raise InputError(f"{split}: expected a data set with a length and items, got {what}")
    limit = (len(dataset), "images") if num_classes is None else (num_classes, "classes")
    pixels: list[np.ndarray] = []
    labels: list[int] = []
    for index in range(len(dataset)):
        image, label, name = _item(dataset, index, split)
        pixels.append(rgb_pixels(_image(image, name), size, name))
        labels.append(_label(label, name, *limit))
    if len({p.shape for p in pixels}) != 1:
        raise InputError(f"{split}: images differ in size; pass size= to resize them")
    return Images(torch.from_numpy(np.stack(pixels)), torch.tensor(labels))
