"""Prepared data sets: directories of decoded images that are mapped into memory, not read.

``prepared.json`` says what it holds and is written last; ``<split>.npy`` are the pixels
``uint8 [N, 3, S, S]`` and ``<split>-labels.npy`` the labels ``int64 [N]``, for train and test.

Damage of ``prepared.json``, labels, headers and lengths is noticed when it is opened. The pixels'
own hash takes a read of them all: rankings, trainings and a second ``prepare`` check it.
"""

import hashlib
import io
import math
import os
import warnings
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .._files import read_json
from .dataset import Images
from .source import DatasetSource

FORMAT = "daqakd-images-2"
METADATA_FILE, PROGRESS_FILE = "prepared.json", "progress.json"
SPLITS = ("train", "test")


@dataclass(frozen=True, repr=False)
class MappedImages(Images):
    """Images whose pixels are mapped from ``path``, where they begin at byte ``start``."""

    sha256: str
    path: Path
    start: int

    def digest(self) -> str:
        """Return the SHA-256 of the pixels; it takes a read of the file, once.

        Raises:
            InputError: the pixels are not those that were written.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        try:
            with open(self.path, "rb") as file:
                file.seek(self.start)
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise damaged(self.path, error) from error
        if found != self.sha256:
            raise damaged(self.path, "its pixels do not have their hash")
        return found


def pixels_path(root: Path, split: str) -> Path:
    """Return the file of a split's pixels."""
    return root / f"{split}.npy"


def labels_path(root: Path, split: str) -> Path:
    """Return the file of a split's labels."""
    return root / f"{split}-labels.npy"


def damaged(path: Path, what: object) -> InputError:
    """Build the error for a file that is not as it was written."""
    return InputError(
        f"{path}: damaged ({what}); delete {path.parent} and prepare the data set again"
    )


def read_metadata(root: Path) -> dict[str, Any]:
    """Read ``prepared.json``.

    Raises:
        InputError: it is damaged, or of a format this version does not know.
    """
    path = root / METADATA_FILE
    try:
        metadata = read_json(path)
        version = metadata["format"]
    except InputError as error:
        raise damaged(path, "its content does not have its hash") from error
    except (OSError, KeyError) as error:
        raise damaged(path, error) from error
    if version == FORMAT:
        return metadata
    raise InputError(
        f"{path}: is of format {version}, this version reads {FORMAT}; delete {root} and prepare"
        " the data set again"
    )


def _map(path: Path, shape: list[int]) -> tuple[Tensor, int]:
    """Map an array's file into memory, read-only; return it and where in the file it begins.

    A private writable mapping would be refused for files larger than memory.
    """
    try:
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            found, fortran, dtype = np.lib.format.read_array_header_1_0(file)
            start, length = file.tell(), os.fstat(file.fileno()).st_size
        if (list(found), fortran, dtype) != (shape, False, np.dtype(np.uint8)):
            raise ValueError(f"holds {dtype} {list(found)}, expected uint8 {shape}")
        if length != start + math.prod(shape):
            raise ValueError(f"has {length} bytes, expected {start + math.prod(shape)}")
        array = np.memmap(path, np.uint8, "r", start, tuple(shape))
    except Exception as error:  # NumPy parses a header as Python, which raises many kinds
        raise damaged(path, error) from error
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*not writable")  # nothing writes to pixels
        return torch.from_numpy(array), start


def _labels(path: Path, sha256: str) -> Tensor:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise damaged(path, error) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise damaged(path, "its content does not have its hash")
    return torch.from_numpy(np.load(io.BytesIO(content)))


def _split(root: Path, name: str, metadata: dict[str, Any]) -> Images:
    written, side = metadata["splits"][name], metadata["size"]
    path = pixels_path(root, name)
    pixels, start = _map(path, [written["images"], 3, side, side])
    labels = _labels(labels_path(root, name), written["labels_sha256"])
    return MappedImages(pixels, labels, written["sha256"], path, start)


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
