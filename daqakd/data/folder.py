"""Folder trees: ``train/<class>/*`` with ``test/<class>/*`` or ``val/<class>/*``.

Tiny ImageNet as distributed is one too: its flat ``val/`` is read through its annotation file,
which says nothing any more once the images are sorted into class folders.
Names that begin with a dot, as file managers and notebooks leave them, are no images or classes,
nor are the folders that systems put beside a user's own.
"""

import hashlib
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from .._errors import InputError
from .._files import read_bytes
from .dataset import Images
from .decoding import ahead, alike, decode
from .resize import new_pixels

ANNOTATIONS = "val_annotations.txt"  # Tiny ImageNet: file name, class, box; tab separated
SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".webp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
SUFFIXES |= {".jfif", ".jpe", ".pnm", ".pbm"}
OF_SYSTEMS = {"@eaDir", "__MACOSX", "__pycache__", "lost+found", "$RECYCLE.BIN"}
OF_SYSTEMS |= {"System Volume Information"}
FILES_PER_TASK = 32  # decoded by a thread at a time: handing over single small ones costs more


def _length(path: Path) -> int:
    """Return the length of a file; a pipe or a device is none, and reading it would hang."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is not a regular file; remove it, then run again")
    return status.st_size


def read_image(path: Path, size: int | None) -> np.ndarray:
    """Return RGB pixels ``uint8 [3, H, W]``, resized to ``size`` where given."""
    try:
        _length(path)
    except OSError as error:
        raise InputError(
            f"{path}: not a readable image ({error}); remove it or replace it, then run again"
        ) from error
    return decode(path, size, str(path))


@dataclass(frozen=True)
class ImageFiles:
    """Image files of one split, decoded when asked for; see :class:`Source`.

    Images that differ in size or are not square are an error while ``size`` is None.
    """

    root: Path
    paths: list[Path]
    labels: Tensor  # int64 [N]
    size: int | None

    def shape(self) -> tuple[int, ...]:
        """Return the shape of the first image, which all must have."""
        return self._shape

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        return read_image(self.paths[0], self.size).shape

    def _decode(self, paths: Sequence[Path]) -> list[np.ndarray]:
        return [self._one(path) for path in paths]

    def _one(self, path: Path) -> np.ndarray:
        image = read_image(path, self.size)
        return alike(image, str(path), self.shape(), str(self.paths[0]))

    def images(self, start: int = 0, workers: int | None = None) -> Iterator[np.ndarray]:
        """Yield the images from ``start`` on; threads decode a little ahead of the reader.

        Raises:
            InputError: an unreadable file, or one of another size.
        """
        self.shape()
        firsts = range(start, len(self.paths), FILES_PER_TASK)
        return ahead((self.paths[i : i + FILES_PER_TASK] for i in firsts), self._decode, workers)

    def read(self) -> Images:
        """Decode every image into memory."""
        pixels = new_pixels(len(self.paths), *self.shape()[1:])
        for target, image in zip(pixels, self.images(), strict=True):
            target[:] = image
        return Images(torch.from_numpy(pixels), self.labels)

    def identity(self, times: bool = False) -> str:
        """Return a hash of names, lengths and labels of the files, and of the size."""
        digest = hashlib.sha256(repr(self.size).encode())
        for path, label in zip(self.paths, self.labels.tolist(), strict=True):
            name = path.relative_to(self.root).as_posix()
            changed = (path.stat().st_mtime_ns,) if times else ()
            digest.update(repr((name, _length(path), label, *changed)).encode())
        return digest.hexdigest()


def _leaves(name: str) -> bool:
    path = PurePosixPath(name)
    return path.is_absolute() or ".." in path.parts


def _annotated_files(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """List a flat folder whose annotation file names each image's class."""
    label_of = {name: label for label, name in enumerate(classes)}
    paths, labels = [], []
    text = os.fsdecode(read_bytes(folder / ANNOTATIONS))  # as the files' names are read
    for number, line in enumerate(text.splitlines(), 1):
        file, tab, rest = line.partition("\t")
        where, name = f"{folder / ANNOTATIONS}, line {number}", rest.partition("\t")[0]
        if not tab or _leaves(file):
            raise InputError(
                f"{where}: expected the name of a file below images/, a tab and its class, got"
                f" {line[:80]!r}; correct the line or remove it"
            )
        if name not in label_of:
            raise InputError(f"{where}: class {name!r} has no folder in train/")
        paths.append(folder / "images" / file)
        labels.append(label_of[name])
    _check_paths(folder, paths)
    return paths, labels


def _check_paths(folder: Path, paths: list[Path]) -> None:
    """Require images in an annotation file, each of them once."""
    twice = [path for path, count in Counter(paths).items() if count > 1]
    if not paths or twice:
        what = f"names {twice[0].name} more than once" if twice else "names no images"
        raise InputError(f"{folder / ANNOTATIONS}: {what}; take the file from the archive again")


def _is_left_out(name: str) -> bool:
    return name.startswith(".") or name in OF_SYSTEMS


def _is_image(path: Path, folder: Path) -> bool:
    """Whether a file's name says that it is an image of this folder."""
    hidden = any(map(_is_left_out, path.relative_to(folder).parts))
    return path.suffix.lower() in SUFFIXES and not hidden and not path.is_dir()


def _class_files(folder: Path, classes: list[str]) -> tuple[list[Path], list[int]]:
    """List a folder with one folder per class."""
    paths: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        files = sorted(p for p in (folder / name).rglob("*") if _is_image(p, folder))
        if not files:
            raise InputError(f"{folder / name}: class folder without images; add some or remove it")
        paths += files
        labels += [label] * len(files)
    return paths, labels


def _is_annotated(folder: Path, classes: list[str]) -> bool:
    """Whether the annotation file tells the classes; once sorted into folders, these do."""
    told = (folder / ANNOTATIONS).is_file()
    return told and set(classes).isdisjoint(_class_names(folder))


def _split(folder: Path, classes: list[str], size: int | None) -> ImageFiles:
    list_files = _annotated_files if _is_annotated(folder, classes) else _class_files
    paths, labels = list_files(folder, classes)
    return ImageFiles(folder, paths, torch.tensor(labels), size)


def _class_names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir() if p.is_dir() and not _is_left_out(p.name))


def _test_folder(root: Path, classes: list[str]) -> Path:
    """Return the folder of test images: annotated, else with classes, else any."""
    tests = [root / name for name in ("test", "val") if (root / name).is_dir()]
    labelled = [t for t in tests if not set(classes).isdisjoint(_class_names(t))]
    annotated = [t for t in tests if _is_annotated(t, classes)]
    return [*annotated, *labelled, *tests][0]


def _check_folders(root: Path) -> None:
    if not all(any((root / n).is_dir() for n in names) for names in (("train",), ("test", "val"))):
        seen = ", ".join(sorted(p.name for p in root.iterdir())[:8]) or "nothing"
        raise InputError(
            f"{root}: expected train/<class>/* and test/<class>/* or val/<class>/*, found {seen}"
        )


def find_tree(root: Path, size: int | None) -> tuple[list[str], ImageFiles, ImageFiles]:
    """List a tree: class names (sorted folder names), training files, test files.

    Raises:
        InputError: a split or a class is missing or empty.
    """
    _check_folders(root)
    train = root / "train"
    classes = _class_names(train)
    if len(classes) < 2:
        raise InputError(f"{train}: expected at least two class folders, found {len(classes)}")
    test = _test_folder(root, classes)
    flat = {"images"} if (test / ANNOTATIONS).is_file() else set()
    differing = sorted(set(classes) ^ set(_class_names(test)) - flat)
    if differing and not _is_annotated(test, classes):
        raise InputError(
            f"{test}: its classes differ from {train}'s: {', '.join(differing[:6])};"
            " both need the same class folders"
        )
    return classes, _split(train, classes, size), _split(test, classes, size)
