"""One resizer: the same images have the same pixels, however they are stored."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from daqakd import data
from daqakd.data.resize import rgb_pixels, rgb_stack

CLASSES = ("airplane", "automobile", "bird")
SIZES = [None, 1, 20, 32, 33, 64]


def cifar_images(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    """Return ``count`` images of each class, uint8 [N, 32, 32, 3], class by class, and labels."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count * len(CLASSES), 32, 32, 3), dtype=np.uint8)
    return images, [label for label in range(len(CLASSES)) for _ in range(count)]


def write_pickles(root: Path, train: tuple, test: tuple) -> None:
    """Write CIFAR-10 as torchvision reads it: five training batches, a test batch and names."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    parts = np.array_split(np.arange(len(train[1])), 5)
    batches = {f"data_batch_{i + 1}": part for i, part in enumerate(parts)}
    contents = {name: (train[0][p], [train[1][i] for i in p]) for name, p in batches.items()}
    for name, (images, labels) in {**contents, "test_batch": test}.items():
        rows = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # planes: red, green, blue
        (folder / name).write_bytes(pickle.dumps({"data": rows, "labels": labels}))
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": list(CLASSES)}))


def write_png(root: Path, train: tuple, test: tuple) -> Path:
    """Write the same images as a folder tree."""
    for split, (images, labels) in {"train": train, "test": test}.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            path = root / split / CLASSES[label] / f"{i:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path)
    return root


@pytest.mark.parametrize("size", SIZES)
def test_cifar_has_the_same_pixels_as_pickles_as_a_folder_and_wrapped(size, tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    train, test = cifar_images(4, 0), cifar_images(3, 1)
    write_pickles(tmp_path, train, test)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    named = data.load("cifar10", size=size)
    tree = data.load(write_png(tmp_path / "tree", train, test), size=size)
    pair = CIFAR10(tmp_path, train=True), CIFAR10(tmp_path, train=False)
    wrapped = data.wrap(*pair, size=size)
    side = size or 32
    assert named.train.pixels.shape == (12, 3, side, side)
    for other in (tree, wrapped):
        assert other.classes == named.classes == CLASSES
        assert torch.equal(other.train.pixels, named.train.pixels)
        assert torch.equal(other.test.pixels, named.test.pixels)
        assert torch.equal(other.train.labels, named.train.labels)
        assert torch.equal(other.test.labels, named.test.labels)
        assert torch.equal(other.heldout, named.heldout)


@pytest.mark.parametrize("size", SIZES)
def test_digits_have_the_pixels_of_their_grey_images(size):
    datasets = pytest.importorskip("sklearn.datasets")
    grey = (datasets.load_digits().images * (255 / 16)).astype(np.uint8)
    images = [rgb_pixels(Image.fromarray(image), size or 32) for image in grey]
    digits = data.load("digits", size=size)
    pixels = torch.cat([digits.train.pixels, digits.test.pixels])
    assert sorted(p.numpy().tobytes() for p in pixels) == sorted(map(np.ndarray.tobytes, images))
    assert (pixels[:, :1] == pixels).all()


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 8), (5, 9, 3), (5, 9)], ids=str)
@pytest.mark.parametrize("size", [None, 5, 8, 12])
def test_arrays_are_resized_as_pillow_resizes_images(shape, size):
    arrays = np.random.default_rng(2).integers(0, 256, (3, *shape), dtype=np.uint8)
    found = rgb_stack(arrays, size)
    sides = (size or shape[1], size or shape[0])
    for array, pixels in zip(arrays, found, strict=True):
        image = Image.fromarray(array).convert("RGB").resize(sides, Image.Resampling.BILINEAR)
        assert (pixels.permute(1, 2, 0).numpy() == np.asarray(image)).all()
