"""A data set exported to Parquet files, such as ``train-00000-of-00001-1359597a978bc4fa.parquet``.

They lie in the folder itself, in ``data/``, or in a folder of their split, as the Hugging Face Hub
has them.
"""

import re
from pathlib import Path

from torch import Tensor

from .._errors import InputError
from .parquet import ParquetImages, class_names, read_labels

SPLITS = ("train", "test", "val", "valid", "validation")
PLACES = ("*.parquet", "data/*.parquet", *(f"{s}/*.parquet" for s in SPLITS))
PLACES += tuple(f"default/{s}/*.parquet" for s in SPLITS)
SHARD = re.compile(r"-(\d+)-of-(\d+)")


def is_export(root: Path) -> bool:
    """Whether a folder holds Parquet files, and not folders of classes beside them."""
    train = root / "train"
    classes = train.is_dir() and any(path.is_dir() for path in train.iterdir())
    return bool(_files(root)) and not classes


def _files(root: Path) -> list[Path]:
    return sorted(path for place in PLACES for path in root.glob(place))


def _split_of(path: Path) -> str | None:
    """Return the split that a file's name tells, or its folder's."""
    for name in (path.stem, path.parent.name):
        words = re.split(r"[^a-z]+", name.lower())
        found = next((word for word in words if word in SPLITS), None)
        if found is not None:
            return found
    return None


def _by_split(root: Path) -> dict[str, list[Path]]:
    """Return the files of each split, all of which must be there."""
    splits: dict[str, list[Path]] = {}
    for path in _files(root):
        split = _split_of(path)
        if split is None:
            raise InputError(
                f"{path}: its name tells no split; expected train-*, and test-*, valid-* or"
                " validation-*.parquet"
            )
        splits.setdefault(split, []).append(path)
    for files in splits.values():
        _check_shards(files)
    if "train" not in splits or len(splits) < 2:
        raise InputError(
            f"{root}: expected train-*.parquet and test-*, valid-* or validation-*.parquet, found"
            f" {', '.join(splits)} alone"
        )
    return splits


def _check_shards(files: list[Path]) -> None:
    """Require that of files such as ``-00001-of-00003`` every one is there, once."""
    told = [SHARD.search(path.stem) for path in files]
    numbers = sorted(int(one[1]) for one in told if one is not None)
    count = max((int(one[2]) for one in told if one is not None), default=0)
    if numbers and numbers != [*range(count)]:
        raise InputError(
            f"{files[0].parent}: expected {count} files {files[0].name.split('-')[0]}-*, numbered"
            f" from 0, found {', '.join(path.name for path in files[:4])}; download the others, or"
            " remove those of another version"
        )


def _tested_on(splits: dict[str, list[Path]]) -> tuple[list[Path], Tensor]:
    """Return the files and the labels of the first split to test on whose labels are told."""
    others = [splits[name] for name in SPLITS[1:] if name in splits]
    labelled = [(files, read_labels(files)) for files in others]
    return next((one for one in labelled if int(one[1].min()) >= 0), labelled[0])


def find_parquet(root: Path, size: int | None) -> tuple[list[str], ParquetImages, ParquetImages]:
    """List the Parquet files of a folder: class names, training images, test images.

    Raises:
        InputError: pyarrow is missing, a split is, or a file, column or label is not as exported.
    """
    splits = _by_split(root)
    files, (other, test) = splits["train"], _tested_on(splits)
    train = read_labels(files)
    names = class_names(files[0]) or [str(y) for y in range(min(int(train.max()) + 1, len(train)))]
    _check_labels(files[0], train, names)
    _check_labels(other[0], test, names)
    counts = train.bincount(minlength=len(names)).tolist()
    if 0 in counts:
        raise InputError(
            f"{files[0].parent}: class {names[counts.index(0)]!r} has no training images; download"
            " all files, or remove the class"
        )
    return names, ParquetImages(root, files, train, size), ParquetImages(root, other, test, size)


def _check_labels(path: Path, labels: Tensor, names: list[str]) -> None:
    wrong = labels[(labels < 0) | (labels >= len(names))]
    if len(wrong):
        raise InputError(
            f"{path}: label {int(wrong[0])} is there or in a file beside it, expected from 0 below"
            f" {len(names)}, the number of classes; remove such rows"
        )
