"""Decodes a data set once into files that later runs map into memory."""

import hashlib
import io
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from torch import Tensor

from .. import _console
from .._arguments import check_flag, check_integer, path_of
from .._config import MOST_WORKERS
from .._errors import InputError, naming
from .._files import read_json, write_bytes, write_json
from .._lock import working_on
from .dataset import check_shapes
from .find import check_size, find
from .prepared import (
    FORMAT,
    METADATA_FILE,
    PROGRESS_FILE,
    SPLITS,
    labels_path,
    open_prepared,
    pixels_path,
    read_metadata,
)
from .source import DatasetSource, Source

SECONDS_BETWEEN_SAVES = 5.0
BLOCK = 2**24  # bytes read at a time when written pixels are hashed again


@dataclass
class _Writer:
    """Fills a directory; after a kill the next writer of the same images continues there."""

    out: Path
    dataset: DatasetSource
    identity: str
    workers: int | None
    watch: Callable[..., Any]

    def __post_init__(self) -> None:
        # of images changed on the way, even to the same length, nothing is kept
        self.begun = _identity(self.dataset, times=True)
        saved = _read_progress(self.out / PROGRESS_FILE, self.begun)
        self.done: dict[str, int] = saved.get("done", dict.fromkeys(SPLITS, 0))
        self.hashes: dict[str, str] = saved.get("sha256", {})  # of the pixels that are done
        self.saved_at = time.monotonic()

    def save_progress(self) -> None:
        """Save how many images of each split are safely on the disk, and their hash."""
        progress = {"identity": self.begun, "done": self.done, "sha256": self.hashes}
        write_json(self.out / PROGRESS_FILE, progress)
        self.saved_at = time.monotonic()

    def write(self) -> None:
        """Write all files, the metadata last."""
        splits: dict[str, Source] = {"train": self.dataset.train, "test": self.dataset.test}
        check_shapes(self.dataset.train.shape(), self.dataset.test.shape())
        self._check_space(splits)
        self.save_progress()
        for name, split in splits.items():
            self._pixels(name, split)
        written = {name: self._labels(name, split.labels) for name, split in splits.items()}
        metadata = {**_metadata(self.dataset, self.identity), "splits": written}
        write_json(self.out / METADATA_FILE, metadata)

    def _labels(self, name: str, labels: Tensor) -> dict[str, Any]:
        """Write a split's labels; return what the metadata says about the split."""
        content = _npy(labels.numpy())
        write_bytes(labels_path(self.out, name), content)
        digest = hashlib.sha256(content).hexdigest()
        return {"images": len(labels), "sha256": self.hashes[name], "labels_sha256": digest}

    def _check_space(self, splits: dict[str, Source]) -> None:
        left = {name: len(split.labels) - self.done[name] for name, split in splits.items()}
        needed = sum(left[name] * int(np.prod(split.shape())) for name, split in splits.items())
        free = shutil.disk_usage(self.out).free
        if needed > free:
            raise InputError(
                f"out: {self.out} needs {needed:,} more bytes, but its disk has {free:,} free;"
                " free some, choose another --out, or a smaller --size"
            )

    def _pixels(self, name: str, split: Source) -> None:
        """Append the images that are missing."""
        shape = (len(split.labels), *split.shape())
        path = pixels_path(self.out, name)
        with naming(path), open(path, "r+b" if path.exists() else "w+b") as file:
            digest = self._begin(file, name, shape)
            missing = split.images(self.done[name], self.workers)
            for image in self.watch(missing, f"prepare {name}", shape[0], self.done[name]):
                content = image.tobytes()
                digest.update(content)
                file.write(content)
                self.done[name] += 1
                if time.monotonic() - self.saved_at > SECONDS_BETWEEN_SAVES:
                    self._flush(file, name, digest)
            self._flush(file, name, digest)

    def _flush(self, file: BinaryIO, name: str, digest: "hashlib._Hash") -> None:
        file.flush()
        os.fsync(file.fileno())
        self.hashes[name] = digest.hexdigest()
        self.save_progress()

    def _begin(self, file: BinaryIO, name: str, shape: tuple[int, ...]) -> "hashlib._Hash":
        """Write the header, keep the images that are safe and whole, and cut the file after them.

        Returns the hash of what is kept.
        """
        digest, start, each = hashlib.sha256(), _header(file, shape), int(np.prod(shape[1:]))
        left = self.done[name] * each
        while block := file.read(min(BLOCK, left)):
            digest.update(block)
            left -= len(block)
        if left or digest.hexdigest() != self.hashes.get(name, digest.hexdigest()):
            self.done[name], digest = 0, hashlib.sha256()
            file.seek(start)
        file.truncate()
        return digest


def _header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write NumPy's header of a uint8 array; return where the pixels start."""
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)
    return file.tell()


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _metadata(dataset: DatasetSource, identity: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": dataset.name,
        "classes": list(dataset.classes),
        "size": dataset.train.shape()[-1],
        "mean": dataset.mean,
        "std": dataset.std,
        "flip": dataset.flip,
        "identity": identity,
    }


def _read_progress(path: Path, identity: str) -> dict[str, Any]:
    """Return what an unfinished run of the same images saved; of a damaged file nothing."""
    try:
        saved = read_json(path)
    except (FileNotFoundError, ValueError):
        return {}
    return saved if saved.get("identity") == identity else {}


def _is_temporary(path: Path) -> bool:
    """Whether a killed run left this file half written."""
    return path.name.startswith(".") and path.suffix == ".tmp"


def _identity(dataset: DatasetSource, times: bool = False) -> str:
    try:
        parts = (dataset.classes, dataset.train.identity(times), dataset.test.identity(times))
    except OSError as error:
        raise InputError(f"{dataset.name}: cannot be read ({error})") from error
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _is_finished(out: Path, identity: str) -> bool:
    """Return whether ``out`` is prepared from the same images; other content is an error."""
    if (out / METADATA_FILE).exists():
        if read_metadata(out).get("identity") == identity:
            return True
        raise InputError(f"out: {out} was prepared from other images or sizes; use another --out")
    begun = not out.exists() or (out / PROGRESS_FILE).is_file()
    if not begun and not all(map(_is_temporary, out.iterdir())):
        raise InputError(f"out: {out} is not empty; name a new directory")
    return False


def _check(out: Path, size: Any, workers: Any, quiet: Any) -> None:
    if workers is not None:
        check_integer("workers", workers, 1, MOST_WORKERS)
    check_size(size)
    check_flag("quiet", quiet)
    if os.path.lexists(out) and not out.is_dir():
        raise InputError(f"out: {out} is a file; name a new directory")


def _check_pixels(dataset: DatasetSource) -> None:
    """Raise InputError where prepared pixels are not those that were written."""
    for split in (dataset.train, dataset.test):
        split.identity()


def prepare(
    name_or_path: str | Path,
    out: str | Path,
    *,
    size: int | None = None,
    workers: int | None = None,
    quiet: bool = True,
) -> Path:
    """Decode and resize a data set once, into a directory that ``load`` maps into memory.

    Loading the directory gives the same numbers as loading the images, but reads only the pixels
    that are used, so the data set may be larger than memory. The same images give the same bytes.
    Interrupted or killed, the same call continues; on a finished directory of the same images, as
    their files' names, lengths and labels tell, it checks that nothing there is damaged.

    Args:
        name_or_path: as for :func:`load`.
        out: directory to write, new or unfinished.
        size: resize images to this side; folders of mixed sizes need it.
        workers: threads that decode; None for one per core.
        quiet: show no progress.

    Returns:
        ``out``.

    Raises:
        InputError: as for :func:`load` (a broken file is named); ``out`` holds something else or
            is damaged; the disk is too small.
    """
    root = path_of("out", out)
    _check(root, size, workers, quiet)
    dataset = find(name_or_path, size)
    try:
        with working_on(root):
            _prepare(root, dataset, size, workers, quiet)
    except OSError as error:
        raise InputError(
            f"out: {root} cannot be written ({error}); once it can, the same command continues"
        ) from error
    return root


def _prepare(
    root: Path, dataset: DatasetSource, size: int | None, workers: int | None, quiet: bool
) -> None:
    identity = _identity(dataset)
    if _is_finished(root, identity):
        _check_pixels(open_prepared(root, size))
    else:
        check_shapes(dataset.train.shape(), dataset.test.shape())
        root.mkdir(parents=True, exist_ok=True)
        watch = _console.quiet if quiet else _console.track
        _Writer(root, dataset, identity, workers, watch).write()
    for path in filter(_is_temporary, [*root.iterdir()]):
        path.unlink()
    (root / PROGRESS_FILE).unlink(missing_ok=True)
