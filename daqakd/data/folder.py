"""Folder trees: ``train/<class>/*`` with ``test/<class>/*`` or ``val/<class>/*``.

Tiny ImageNet as distributed is one too: its flat ``val/`` is read through its annotation file.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .._errors import InputError
from .dataset import Images

ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet: file name, class, box; tab separated
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


def read_image(path: Path, size: int | None) -> np.ndarray:
    """Return RGB pixels ``uint8 [H, W, 3]``, resized (bilinear) to ``size`` where given."""
    try:
        with Image.open(path) as image:
            rgb = image.convert("RGB")
    except (UnidentifiedImageError, OSError) as error:
        raise InputError(
            f"{path}: not a readable image ({error}); remove it or replace it, then run again"
        ) from error
    if size is not None and rgb.size != (size, size):
        rgb = rgb.resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(rgb)


def _annotated(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """List a flat folder whose annotation file names the classes."""
    places = {name: label for label, name in enumerate(classes)}
    paths, labels = [], []
    for line in (folder / ANNOTATIONS).read_text().splitlines():
        file, name = line.split("\t")[:2]
        if name not in places:
            raise InputError(f"{folder / ANNOTATIONS}: class {name!r} has no folder in train/")
        paths.append(folder / "images" / file)
        labels.append(places[name])
    return paths, labels


def _list(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    if (folder / ANNOTATIONS).is_file():
        return _annotated(folder, classes)
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(p for p in (folder / name).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(f"{folder / name}: class folder without images; add some or remove it")
        paths += found
        labels += [label] * len(found)
    return paths, labels


def read_split(folder: Path, classes: list[str], size: int | None) -> Images:
    """Read every image of one split into memory.

    Raises:
        InputError: an empty class, an unreadable image, or images that differ in size or are not
            square while ``size`` is None.
    """
    paths, labels = _list(folder, classes)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        first = read_image(paths[0], size)
        pixels = np.empty((len(paths), *first.shape), np.uint8)

        def load(i: int) -> None:
            image = read_image(paths[i], size)
            if image.shape != first.shape or image.shape[0] != image.shape[1]:
                raise InputError(
                    f"{paths[i]}: is {image.shape[1]} x {image.shape[0]} pixels, but {paths[0]} is"
                    f" {first.shape[1]} x {first.shape[0]}; images must be square and of one size:"
                    " pass --size to resize them"
                )
            pixels[i] = image

        list(pool.map(load, range(len(paths))))
    return Images(_channels_first(pixels), torch.tensor(labels))


def _channels_first(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


def read_tree(root: Path, size: int | None) -> tuple[list[str], Images, Images]:
    """Read a tree: class names (sorted folder names), training images, test images."""
    train = root / "train"
    tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
    tests = [t for t in tests if (t / ANNOTATIONS).is_file()] or tests
    if not train.is_dir() or not tests:
        seen = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root}: expected train/<class>/* and test/<class>/* or val/<class>/*, found {seen}"
        )
    classes = sorted(p.name for p in train.iterdir() if p.is_dir())
    annotated = (tests[0] / ANNOTATIONS).is_file()
    others = sorted(p.name for p in tests[0].iterdir() if p.is_dir())
    if len(classes) < 2:
        raise InputError(f"{train}: expected at least two class folders, found {len(classes)}")
    if classes != others and not annotated:
        odd = sorted(set(classes) ^ set(others))
        raise InputError(
            f"{tests[0]}: its classes differ from {train}'s: {', '.join(odd[:6])};"
            " both need the same class folders"
        )
    return classes, read_split(train, classes, size), read_split(tests[0], classes, size)
