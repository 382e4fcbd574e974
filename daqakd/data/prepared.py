"""Prepared data sets: directories of decoded images that are mapped into memory, not read.

``prepared.json`` says what it holds and is written last; ``<split>.npy`` are the pixels
``uint8 [N, 3, S, S]`` and ``<split>-labels.npy`` the labels ``int64 [N]``, for train and test.
"""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .dataset import Images
from .source import DatasetSource

FORMAT = "daqakd-images-1"
METADATA_FILE, PROGRESS_FILE = "prepared.json", "progress.json"
SPLITS = ("train", "test")


def pixels_path(root: Path, split: str) -> Path:
    """Return the file of a split's pixels."""
    return root / f"{split}.npy"


def labels_path(root: Path, split: str) -> Path:
    """Return the file of a split's labels."""
    return root / f"{split}-labels.npy"


def read_metadata(root: Path) -> dict[str, Any]:
    """Read ``prepared.json``.

    Raises:
        InputError: it is damaged, or of a format this version does not know.
    """
    path = root / METADATA_FILE
    try:
        metadata: dict[str, Any] = json.loads(path.read_text())
        version = metadata["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); prepare the data set again") from error
    if version != FORMAT:
        raise InputError(
            f"{path}: is of format {version}, this version reads {FORMAT}; prepare it again"
        )
    return metadata


def _map(path: Path, shape: list[int]) -> Tensor:
    """Map an array's file into memory, read-only.

    A private writable mapping would be refused for files larger than memory.
    """
    try:
        array = np.load(path, mmap_mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); prepare the data set again") from error
    if array.dtype != np.uint8 or list(array.shape) != shape:
        raise InputError(
            f"{path}: expected uint8 {shape}, got {array.dtype} {list(array.shape)}; prepare the"
            " data set again"
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing writes to pixels
        return torch.from_numpy(array)


def _labels(path: Path, count: int, num_classes: int) -> Tensor:
    try:
        array = np.load(path)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error}); prepare the data set again") from error
    fits = array.dtype == np.int64 and array.shape == (count,)
    if not fits or not 0 <= array.min() <= array.max() < num_classes:
        raise InputError(
            f"{path}: expected int64 [{count}] below {num_classes}; prepare the data set again"
        )
    return torch.from_numpy(array)


def _split(root: Path, name: str, metadata: dict[str, Any]) -> Images:
    written, side = metadata["splits"][name], metadata["size"]
    pixels = _map(pixels_path(root, name), [written["images"], 3, side, side])
    labels = _labels(labels_path(root, name), written["images"], len(metadata["classes"]))
    return Images(pixels, labels, written["sha256"])


def open_prepared(root: Path, size: int | None) -> DatasetSource:
    """Open a prepared data set: its pixels are mapped, so that only what is used is read.

    Raises:
        InputError: a damaged file, or images of another size than ``size``.
    """
    metadata = read_metadata(root)
    side = metadata["size"]
    if size not in (None, side):
        raise InputError(
            f"size: {size} asked for, but {root} was prepared with {side} x {side} pixels; leave"
            " --size out, or prepare the original images again with it"
        )
    return DatasetSource(
        metadata["name"],
        metadata["classes"],
        _split(root, "train", metadata),
        _split(root, "test", metadata),
        tuple(metadata["mean"]),
        tuple(metadata["std"]),
        metadata["flip"],
    )
