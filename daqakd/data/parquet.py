"""Images and labels in Parquet files, as the Hugging Face Hub exports data sets.

A row holds an image's file, ``image: {bytes, path}``, and its ``label``; the schema's metadata
holds the names of the classes.
"""

import hashlib
import io
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .dataset import Images
from .decoding import ahead, alike, decode
from .resize import new_pixels

COLUMNS = {"image": ("image", "img"), "label": ("label", "labels", "fine_label")}
ROWS_PER_TASK = 32  # as many as of small files
Row = tuple[str, Any]  # its name, its image


def _module(root: Path) -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise InputError(
            f"{root}: holds Parquet files, which need pyarrow: pip install 'daqakd[parquet]'"
        ) from error
    return pyarrow.parquet


@contextmanager
def _reading(path: Path) -> Iterator[Any]:
    """Open a file; what pyarrow finds wrong with it is said in a sentence."""
    module = _module(path.parent)
    try:
        with module.ParquetFile(path) as file:
            yield file
    except InputError:
        raise
    except Exception as error:  # pyarrow raises its own kinds, OSError and ValueError among them
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: cannot be read as Parquet ({reason}); download it again"
        ) from error


def _column(file: Any, path: Path, kind: str) -> str:
    """Return the name of the column of images or labels."""
    names = file.schema_arrow.names
    found = [name for name in COLUMNS[kind] if name in names]
    if not found:
        raise InputError(
            f"{path}: expected columns image (bytes and path) and label, found {', '.join(names)};"
            " rename them"
        )
    return found[0]


@dataclass(frozen=True)
class ParquetImages:
    """Images of one split's files, decoded when asked for; see :class:`Source`.

    Images that differ in size or are not square are an error while ``size`` is None.
    """

    root: Path
    files: list[Path]
    labels: Tensor  # int64 [N]
    size: int | None

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the first image, which all must have."""
        return self._first[1]

    @cached_property
    def _first(self) -> tuple[str, tuple[int, ...]]:
        name, image = next(self._rows(0))
        return name, self._pixels(name, image).shape

    def _rows(self, start: int) -> Iterator[Row]:
        """Yield the rows from ``start`` on; row groups before it are not read."""
        for path in self.files:
            with _reading(path) as file:
                column, number = _column(file, path, "image"), 0
                for group in range(file.num_row_groups):
                    count = file.metadata.row_group(group).num_rows
                    if count > start:
                        rows = _images(file, group, column)
                        named = ((f"{path} (row {number + i})", one) for i, one in enumerate(rows))
                        yield from islice(named, start, None)
                    start, number = max(start - count, 0), number + count

    def _pixels(self, name: str, image: Any) -> np.ndarray:
        content = image.get("bytes") if isinstance(image, dict) else image
        if not isinstance(content, bytes):
            raise InputError(
                f"{name}: has no image, only what names one; export the data set with the images"
                " embedded"
            )
        return decode(io.BytesIO(content), self.size, name)

    def _decode(self, rows: Sequence[Row]) -> list[np.ndarray]:
        first, wanted = self._first
        return [alike(self._pixels(*row), row[0], wanted, first) for row in rows]

    def images(self, start: int = 0, workers: int | None = None) -> Iterator[np.ndarray]:
        """Yield the images from ``start`` on; threads decode a little ahead of the reader.

        Raises:
            InputError: an unreadable image or file, or an image of another size.
        """
        self.shape()
        rows = self._rows(start)
        parts = iter(lambda: list(islice(rows, ROWS_PER_TASK)), [])
        return ahead(parts, self._decode, workers)

    def read(self) -> Images:
        """Decode every image into memory."""
        pixels = new_pixels(len(self.labels), *self.shape()[1:])
        for target, image in zip(pixels, self.images(), strict=True):
            target[:] = image
        return Images(torch.from_numpy(pixels), self.labels)

    def identity(self, times: bool = False) -> str:
        """Return a hash of names and lengths of the files, of the labels and of the size."""
        digest = hashlib.sha256(repr((self.size, self.labels.tolist())).encode())
        for path in self.files:
            status = path.stat()
            changed = (status.st_mtime_ns,) if times else ()
            name = path.relative_to(self.root).as_posix()
            digest.update(repr((name, status.st_size, *changed)).encode())
        return digest.hexdigest()


def _images(file: Any, group: int, column: str) -> Iterator[Any]:
    for batch in file.iter_batches(ROWS_PER_TASK, [group], columns=[column]):
        yield from batch.column(0).to_pylist()


def class_names(path: Path) -> list[str] | None:
    """Return the names of the classes, where the schema's metadata tells them."""
    with _reading(path) as file:
        told = (file.schema_arrow.metadata or {}).get(b"huggingface")
        label = _column(file, path, "label")
    try:
        names = json.loads(told or b"")["info"]["features"][label]["names"]
    except (ValueError, KeyError, TypeError):
        return None
    return list(map(str, names)) if isinstance(names, list) else None


def _is_label(value: Any) -> bool:
    return type(value) is int and abs(value) < 2**31


def read_labels(files: list[Path]) -> Tensor:
    """Return a split's labels: int64 ``[N]``."""
    found: list[int] = []
    for path in files:
        with _reading(path) as file:
            _, column = _column(file, path, "image"), _column(file, path, "label")
            values = file.read([column]).column(0).to_pylist()
        wrong = next((i for i, v in enumerate(values) if not _is_label(v)), None)
        if wrong is not None:
            raise InputError(
                f"{path} (row {wrong}): label is {values[wrong]!r}, expected an integer; remove the"
                " row, or export labels as integers"
            )
        found += values
    if not found:
        raise InputError(f"{files[0]}: has no rows; download it again")
    return torch.tensor(found)
