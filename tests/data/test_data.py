"""Data sets: folders, digits, wrapped data sets, and the held-out split."""

import numpy as np
import pytest
import torch
from PIL import Image

from daqakd import InputError, data
from daqakd.data.dataset import class_ranks, split


def write_tree(root, sizes=((8, 8),), classes=("cat", "dog"), splits=("train", "test"), count=3):
    rng = np.random.default_rng(0)
    for part in splits:
        for name in classes:
            (root / part / name).mkdir(parents=True)
            for i in range(count):
                height, width = sizes[i % len(sizes)]
                pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{i}.png")
    return root


def test_folder_is_read_as_it_lies(tmp_path):
    dataset = data.load(write_tree(tmp_path), holdout=0)
    assert dataset.classes == ("cat", "dog")
    assert dataset.train.pixels.shape == (6, 3, 8, 8)
    assert dataset.train.pixels.dtype == torch.uint8
    assert dataset.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    first = np.asarray(Image.open(tmp_path / "train/cat/0.png"))
    assert (dataset.train.pixels[0].permute(1, 2, 0).numpy() == first).all()


def test_val_serves_as_test_and_grey_becomes_rgb(tmp_path):
    write_tree(tmp_path, splits=("train", "val"))
    Image.fromarray(np.full((8, 8), 7, np.uint8)).save(tmp_path / "val/cat/0.png")
    dataset = data.load(tmp_path)
    assert (dataset.test.pixels[0] == 7).all()


def test_mixed_sizes_need_size(tmp_path):
    write_tree(tmp_path, sizes=((8, 8), (9, 12)))
    with pytest.raises(InputError, match=r"12 x 9 pixels.*--size"):
        data.load(tmp_path)
    assert data.load(tmp_path, size=16).size == 16


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda r: (r / "train/cat/0.png").write_bytes(b"no"), r"0\.png: not a readable image"),
        (lambda r: [p.unlink() for p in (r / "train/dog").iterdir()], "without images"),
        (lambda r: (r / "test/dog").rename(r / "test/cow"), "classes differ.*cow"),
        (lambda r: (r / "test").rename(r / "tests"), r"expected train/<class>.*found tests, train"),
    ],
    ids=["unreadable", "empty", "other-classes", "no-test"],
)
def test_spoilt_folders_say_where(tmp_path, spoil, message):
    spoil(write_tree(tmp_path))
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


def test_missing_folder_suggests_a_name():
    with pytest.raises(InputError, match=r"digit: no such folder.*Did you mean 'digits'"):
        data.load("digit")


def test_digits_need_no_files():
    pytest.importorskip("sklearn")
    dataset = data.load("digits")
    assert dataset.train.pixels.shape[1:] == (3, 32, 32)
    assert len(dataset.train) + len(dataset.test) == 1797
    assert not dataset.flip
    again = data.load("digits", seed=5)
    assert torch.equal(again.test.pixels, dataset.test.pixels), "the test set moved with the seed"


def test_split_is_stratified_disjoint_and_fixed_by_the_seed():
    labels = torch.tensor([0] * 50 + [1] * 20 + [2] * 2 + [3])
    fit, held = split(labels, 0.1, seed=1)
    assert sorted([*fit.tolist(), *held.tolist()]) == list(range(len(labels)))
    assert torch.bincount(labels[held], minlength=4).tolist() == [5, 2, 1, 0]
    assert torch.equal(split(labels, 0.1, seed=1)[1], held)
    assert not torch.equal(split(labels, 0.1, seed=2)[1], held)
    assert len(split(labels, 0.0, seed=1)[1]) == 0


def test_every_bit_of_a_seed_moves_the_split():
    labels = torch.arange(200) % 2
    held = [tuple(split(labels, 0.1, s)[1].tolist()) for s in (0, 2**32, 2**33, -1, 2**32 - 1)]
    assert len(set(held)) == len(held)


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 0.5, "0", None])
def test_seeds_that_cannot_be_meant(seed, tmp_path):
    with pytest.raises(InputError, match="seed: expected an integer from"):
        data.load(write_tree(tmp_path), seed=seed)


@pytest.mark.parametrize("holdout", [1, -0.1, "0.1", None, float("nan")])
def test_shares_that_cannot_be_meant(holdout, tmp_path):
    with pytest.raises(InputError, match="holdout: expected a share"):
        data.load(write_tree(tmp_path), holdout=holdout)


def test_class_ranks_count_within_the_class():
    labels = torch.tensor([1, 0, 1, 1, 0])
    assert class_ranks(labels, torch.arange(5)).tolist() == [0, 0, 1, 2, 1]


def test_wrap_reads_pil_and_uint8_items():
    image = Image.fromarray(np.full((8, 8), 9, np.uint8))
    items = [(image, 0), (torch.full((3, 8, 8), 9, dtype=torch.uint8), 1)]
    dataset = data.wrap(items, items, holdout=0)
    assert (dataset.train.pixels == 9).all()
    assert dataset.num_classes == 2
    with pytest.raises(InputError, match="item 0: expected a PIL image or uint8"):
        data.wrap([(torch.zeros(3, 8, 8), 0)], items)


def test_normalisation_must_have_three_positive_numbers(tmp_path):
    write_tree(tmp_path)
    with pytest.raises(InputError, match="std: expected three positive"):
        data.load(tmp_path, std=(1.0, 0.0, 1.0))


def write_tiny_imagenet(root):
    """Tiny ImageNet as distributed: images/ below each class, a flat annotated val/, bare test/."""
    write_tree(root, classes=("n01", "n02"), splits=("train",))
    for name in ("n01", "n02"):
        (root / "train" / name / "images").mkdir()
        for path in (root / "train" / name).glob("*.png"):
            path.rename(path.parent / "images" / path.name)
    (root / "val/images").mkdir(parents=True)
    (root / "test/images").mkdir(parents=True)
    lines = []
    for i, name in enumerate(["n02", "n01", "n02"]):
        Image.fromarray(np.full((8, 8, 3), i, np.uint8)).save(root / f"val/images/val_{i}.png")
        lines.append(f"val_{i}.png\t{name}\t0\t0\t1\t1\n")
    (root / "val/val_annotations.txt").write_text("".join(lines))
    return root


def test_tiny_imagenet_as_distributed(tmp_path, monkeypatch):
    write_tiny_imagenet(tmp_path / "tiny-imagenet-200")
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    dataset = data.load("tiny-imagenet")
    assert dataset.classes == ("n01", "n02")
    assert dataset.test.labels.tolist() == [1, 0, 1]
    assert dataset.test.pixels[2].unique().tolist() == [2]
    assert len(dataset.train) == 6


def test_missing_named_sets_say_where_to_put_them(tmp_path, monkeypatch):
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    with pytest.raises(InputError, match=r"tiny-imagenet: not found in .*DAQAKD_DATA"):
        data.load("tiny-imagenet")

    def offline(*args, **kwargs):
        raise OSError("Network is unreachable")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    with pytest.raises(InputError, match=r"cifar10: not found in .*unreachable.*Without a network"):
        data.load("cifar10")


def test_named_cifar_is_read_from_an_unpacked_tree(tmp_path, monkeypatch):
    write_tree(tmp_path / "cifar10")
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    dataset = data.load("cifar10", holdout=0)
    assert dataset.inputs.mean == (0.4914, 0.4822, 0.4465)
    assert dataset.num_classes == 2
