"""CIFAR-10, CIFAR-100 and Tiny ImageNet by name, from ``DAQAKD_DATA`` or ``~/.cache/daqakd``."""

import os
from pathlib import Path
from typing import Any

import torch

from .._errors import InputError
from ..augment.inputs import IMAGENET_MEAN, IMAGENET_STD, Channels
from .dataset import Images
from .export import find_parquet, is_export
from .folder import find_tree
from .resize import rgb_stack
from .source import Source

Statistics = tuple[Channels, Channels]

NAMED_STATISTICS: dict[str, Statistics] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny-imagenet": (IMAGENET_MEAN, IMAGENET_STD),
}
FOLDERS = {
    "cifar10": ("cifar10",),
    "cifar100": ("cifar100",),
    "tiny-imagenet": ("tiny-imagenet-200", "tiny-imagenet"),
}


def data_root() -> Path:
    """Return the folder that holds the named data sets."""
    return Path(os.environ.get("DAQAKD_DATA") or Path.home() / ".cache" / "daqakd")


def find_named(name: str, size: int | None) -> tuple[list[str], Source, Source]:
    """Find a named data set: a tree or Parquet files where they are, else torchvision's CIFAR.

    Raises:
        InputError: the files are missing and cannot be downloaded.
    """
    root = data_root()
    for folder in (root / folder for folder in FOLDERS[name]):
        if is_export(folder):
            return find_parquet(folder, size)
        if (folder / "train").is_dir():
            return find_tree(folder, size)
    if name == "tiny-imagenet":
        raise InputError(
            f"tiny-imagenet: not found in {root}; unpack tiny-imagenet-200.zip there, put the"
            " Hugging Face export's train-*.parquet and valid-*.parquet into tiny-imagenet/, or set"
            " DAQAKD_DATA to the folder that holds either"
        )
    train, test = _cifar(name, root, True), _cifar(name, root, False)
    return list(train.classes), _images(train, size), _images(test, size)


def _cifar(name: str, root: Path, train: bool) -> Any:
    from torchvision.datasets import CIFAR10, CIFAR100

    kind = {"cifar10": CIFAR10, "cifar100": CIFAR100}[name]
    try:
        return kind(root, train=train, download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(
            f"{name}: not found in {root}, and the download failed ({error}). Without a network,"
            " put torchvision's files or a train/<class>, test/<class> tree there, or set"
            " DAQAKD_DATA"
        ) from error


def _images(dataset: Any, size: int | None) -> Images:
    return Images(rgb_stack(dataset.data, size), torch.tensor(dataset.targets))
