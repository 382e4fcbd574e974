"""Finds a data set by name or path, without decoding images."""

from pathlib import Path

from .._arguments import check_side, path_of
from .._errors import InputError, suggest
from ..augment.inputs import IMAGENET_MEAN, IMAGENET_STD
from .digits import read_digits
from .export import find_parquet, is_export
from .folder import find_tree
from .named import NAMED_STATISTICS, find_named
from .prepared import METADATA_FILE, PROGRESS_FILE, open_prepared
from .source import DatasetSource, Source

NAMES = ["cifar10", "cifar100", "digits", "tiny-imagenet"]

Splits = tuple[list[str], Source, Source]


def find(name_or_path: str | Path, size: int | None) -> DatasetSource:
    """Return a data set before its images are read; arguments and errors as for ``load``."""
    path = path_of("name_or_path", name_or_path)
    check_size(size)
    try:
        return _find(str(name_or_path), path, size)
    except OSError as error:
        raise InputError(f"{name_or_path}: cannot be read ({error})") from error


def check_size(size: int | None) -> None:
    """Raise InputError for a side that cannot be meant."""
    if size is not None:
        check_side("size", size)


def _find(name: str, path: Path, size: int | None) -> DatasetSource:
    if name not in NAMES and (path / METADATA_FILE).is_file():
        return open_prepared(path, size)
    classes, train, test = _splits(name, path, size)
    mean, std = NAMED_STATISTICS.get(name, (IMAGENET_MEAN, IMAGENET_STD))
    flip = name != "digits"
    return DatasetSource(path.resolve().name, classes, train, test, mean, std, flip)


def _splits(name: str, path: Path, size: int | None) -> Splits:
    if name == "digits":
        return read_digits(size)
    if name in NAMED_STATISTICS:
        return find_named(name, size)
    if (path / PROGRESS_FILE).is_file():
        raise InputError(
            f"{path}: daqakd data prepare has not finished there; run the same command again, it"
            " continues"
        )
    if path.is_dir():
        return find_parquet(path, size) if is_export(path) else find_tree(path, size)
    raise InputError(
        f"{name}: no such folder or data set.{suggest(name, NAMES)} Known data sets:"
        f" {', '.join(NAMES)}; or a folder with train/<class>/* and test/<class>/*"
    )
