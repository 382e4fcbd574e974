"""Data sets: by name, from a folder, or wrapped around anybody's map-style data set."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..augment.inputs import IMAGENET_MEAN, IMAGENET_STD, InputSpec
from .dataset import Dataset, Images, class_ranks, make
from .find import NAMES, check_size, find
from .items import check_classes, gather
from .preparing import prepare


def load(
    name_or_path: str | Path,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load a data set by name, from a folder of images, or from what :func:`prepare` wrote.

    Images are PNG, JPEG, WebP, BMP, TIFF, GIF (its first frame) or PPM; 16-bit grey is scaled to 8.
    Names that begin with a dot, and folders of systems such as ``__MACOSX``, are left out.

    Args:
        name_or_path: ``"cifar10" "cifar100" "digits" "tiny-imagenet"``, a folder
            ``train/<class>/*`` with ``test/`` or ``val/``, one of Parquet files as the Hugging Face
            Hub exports data sets (by the extra ``parquet``), or a prepared directory, whose pixels
            are mapped from its files instead of read. Named sets are looked for in
            ``DAQAKD_DATA`` (else ``~/.cache/daqakd``); CIFAR is downloaded there.
        mean: per-channel mean of inputs in [0, 1]; default: CIFAR's own, else ImageNet's.
        std: per-channel standard deviation; default as for ``mean``.
        size: resize images to this side; folders of mixed sizes need it.
        holdout: share of the training images of each class that never trains a model.
        seed: fixes which images are held out; 64 bits.

    Raises:
        InputError: no such name or folder, an unreadable image or one of floats, an empty class,
            mixed sizes, also between training and test images, a damaged prepared or Parquet file.
    """
    found = find(name_or_path, size)
    return make(
        found.name,
        found.classes,
        found.train.read(),
        found.test.read(),
        inputs=InputSpec().with_changes(
            mean=found.mean if mean is None else mean, std=found.std if std is None else std
        ),
        holdout=holdout,
        seed=seed,
        flip=found.flip,
    )


def wrap(
    train: Any,
    test: Any,
    *,
    name: str = "wrapped",
    classes: Sequence[str] | None = None,
    mean: Sequence[float] = IMAGENET_MEAN,
    std: Sequence[float] = IMAGENET_STD,
    size: int | None = None,
    holdout: float = 0.1,
    seed: int = 0,
    flip: bool = True,
) -> Dataset:
    """Wrap map-style data sets of (image, label), such as torchvision's, read once into memory.

    Images are PIL images or ``uint8 [C, H, W]`` tensors, untransformed. See :func:`load` for the
    other arguments; ``classes`` defaults to ``train.classes`` or the labels as text.

    Raises:
        InputError: an item of another type, a label without a class, fewer than two classes, no
            items, or, without ``size``, images that are not square and of one size.
    """
    check_size(size)
    names = getattr(train, "classes", None) if classes is None else classes
    if names is not None:
        check_classes(names)
    train_images = gather(train, "train", size, None if names is None else len(names))
    if names is None:
        names = [str(y) for y in range(int(train_images.labels.max()) + 1)]
    test_images = gather(test, "test", size, len(names))
    return make(
        name,
        names,
        train_images,
        test_images,
        inputs=InputSpec().with_changes(mean=mean, std=std),
        holdout=holdout,
        seed=seed,
        flip=flip,
    )


__all__ = ["NAMES", "Dataset", "Images", "class_ranks", "load", "prepare", "wrap"]
