"""Decodes a data set once into files that later runs map into memory."""

import hashlib
import io
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import _console
from .._errors import InputError
from .._files import write_bytes, write_json
from .find import find
from .prepared import FACTS, FORMAT, PROGRESS, SPLITS, labels_path, pixels_path, read_facts
from .source import Found, Source

SECONDS_BETWEEN_NOTES = 5.0
BLOCK = 2**24  # bytes read at a time when written pixels are hashed again


@dataclass
class _Writer:
    """The directory being filled, and what a kill would leave of it."""

    out: Path
    found: Found
    identity: str
    workers: int | None
    watch: Callable[..., Any]

    def __post_init__(self) -> None:
        noted = _read_json(self.out / PROGRESS)
        same = noted.get("identity") == self.identity
        self.done: dict[str, int] = noted["done"] if same else dict.fromkeys(SPLITS, 0)
        self.noted_at = time.monotonic()

    def note(self) -> None:
        """Note how many images of each split are safely on the disk."""
        write_json(self.out / PROGRESS, {"identity": self.identity, "done": self.done})
        self.noted_at = time.monotonic()

    def write(self) -> None:
        """Write all files, the facts last."""
        splits: dict[str, Source] = {"train": self.found.train, "test": self.found.test}
        self._check_space(splits)
        self.note()
        hashes = {name: self._pixels(name, split) for name, split in splits.items()}
        for name, split in splits.items():
            write_bytes(labels_path(self.out, name), _npy(split.labels.numpy()))
        held = {n: {"images": len(s.labels), "sha256": hashes[n]} for n, s in splits.items()}
        write_json(self.out / FACTS, {**_facts(self.found, self.identity), "splits": held})

    def _check_space(self, splits: dict[str, Source]) -> None:
        left = {name: len(split.labels) - self.done[name] for name, split in splits.items()}
        needed = sum(left[name] * int(np.prod(split.shape())) for name, split in splits.items())
        free = shutil.disk_usage(self.out).free
        if needed > free:
            raise InputError(
                f"out: {self.out} needs {needed:,} more bytes, but its disk has {free:,} free;"
                " free some, choose another --out, or a smaller --size"
            )

    def _pixels(self, name: str, split: Source) -> str:
        """Append the images that are missing; return the hash of all pixels."""
        shape = (len(split.labels), *split.shape())
        path = pixels_path(self.out, name)
        with open(path, "r+b" if path.exists() else "w+b") as file:
            digest = self._begin(file, name, shape)
            missing = split.images(self.done[name], self.workers)
            for image in self.watch(missing, f"prepare {name}", shape[0], self.done[name]):
                content = image.tobytes()
                digest.update(content)
                file.write(content)
                self.done[name] += 1
                if time.monotonic() - self.noted_at > SECONDS_BETWEEN_NOTES:
                    self._flush(file)
            self._flush(file)
        return digest.hexdigest()

    def _flush(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self.note()

    def _begin(self, file: BinaryIO, name: str, shape: tuple[int, ...]) -> "hashlib._Hash":
        """Write the header, keep the noted images and hash them; the file ends after them."""
        digest, start, each = hashlib.sha256(), _header(file, shape), int(np.prod(shape[1:]))
        written = max(os.fstat(file.fileno()).st_size - start, 0) // each
        self.done[name] = min(self.done[name], written)
        left = self.done[name] * each
        while left:
            block = file.read(min(BLOCK, left))
            digest.update(block)
            left -= len(block)
        file.truncate()
        return digest


def _header(file: BinaryIO, shape: tuple[int, ...]) -> int:
    """Write NumPy's header of a uint8 array; return where the pixels start."""
    facts = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, facts)
    return file.tell()


def _npy(array: np.ndarray) -> bytes:
    content = io.BytesIO()
    np.save(content, array)
    return content.getvalue()


def _facts(found: Found, identity: str) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "name": found.name,
        "classes": list(found.classes),
        "size": found.train.shape()[-1],
        "mean": found.mean,
        "std": found.std,
        "flip": found.flip,
        "identity": identity,
    }


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.exists() else {}


def _identity(found: Found) -> str:
    parts = (found.classes, found.train.identity(), found.test.identity())
    return hashlib.sha256(repr(parts).encode()).hexdigest()


def _is_finished(out: Path, identity: str) -> bool:
    """Say whether ``out`` is prepared from the same images; anything foreign there is an error."""
    if (out / FACTS).exists():
        if read_facts(out).get("identity") == identity:
            return True
        raise InputError(f"out: {out} was prepared from other images or sizes; use another --out")
    if out.exists() and not (out / PROGRESS).is_file() and any(out.iterdir()):
        raise InputError(f"out: {out} is not empty; name a new directory")
    return False


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
    Interrupted or killed, the same call continues; on a finished directory it does nothing, which
    it tells from the files' names, lengths and labels.

    Args:
        name_or_path: as for :func:`load`.
        out: directory to write, new or unfinished.
        size: resize images to this side; folders of mixed sizes need it.
        workers: threads that decode; None for one per core.
        quiet: show no progress.

    Returns:
        ``out``.

    Raises:
        InputError: as for :func:`load` (a broken file is named); ``out`` holds something else; the
            disk is too small.
    """
    if workers is not None and workers < 1:
        raise InputError(f"workers: expected at least 1 thread, got {workers}")
    if size is not None and size < 1:
        raise InputError(f"size: expected at least 1 pixel, got {size}")
    place = Path(out)
    if place.exists() and not place.is_dir():
        raise InputError(f"out: {place} is a file; name a new directory")
    found = find(name_or_path, size)
    identity = _identity(found)
    try:
        if not _is_finished(place, identity):
            place.mkdir(parents=True, exist_ok=True)
            watch = _console.quiet if quiet else _console.track
            _Writer(place, found, identity, workers, watch).write()
        (place / PROGRESS).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"out: {place} cannot be written ({error}); once it can, the same command continues"
        ) from error
    return place
