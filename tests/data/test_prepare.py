"""Prepared data sets: the same numbers as the folder, mapped, and safe against kills."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from daqakd import InputError, data
from daqakd._files import read_json, write_json
from daqakd.augment import InputSpec, Stream, get_strategy, register_strategy
from daqakd.data import folder, preparing

from ..helpers.small import small_images
from .test_data import write_tree

ROOT = Path(__file__).parents[2]
MIXED = ((8, 8), (9, 12), (30, 7))


def same(a: data.Dataset, b: data.Dataset) -> None:
    for field in ("name", "classes", "inputs", "flip"):
        assert getattr(a, field) == getattr(b, field), field
    pairs = [(a.fit, b.fit), (a.heldout, b.heldout)]
    for one, other in ((a.train, b.train), (a.test, b.test)):
        pairs += [(one.pixels, other.pixels), (one.labels, other.labels)]
        assert one.digest() == other.digest()
    assert all(torch.equal(x, y) for x, y in pairs)


def note(out: Path, **changes) -> None:
    """Change what ``prepared.json`` says, as if it had been written so."""
    path = out / "prepared.json"
    write_json(path, {**read_json(path), **changes})


def contents(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(root.iterdir())}


def test_loading_it_gives_the_same_numbers_as_the_folder(tmp_path):
    tree = write_tree(tmp_path / "tree", MIXED, count=40)
    out = data.prepare(tree, tmp_path / "out", size=16)
    same(data.load(out, seed=4), data.load(tree, size=16, seed=4))
    same(
        data.load(out, size=16, mean=(0.1, 0.2, 0.3)),
        data.load(tree, size=16, mean=(0.1, 0.2, 0.3)),
    )
    assert data.load(out).train.digest() == data.load(tree, size=16).train.digest()


def test_named_sets_keep_their_statistics(tmp_path, monkeypatch):
    write_tree(tmp_path / "cifar10")
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    same(data.load(data.prepare("cifar10", tmp_path / "out")), data.load("cifar10"))


def test_digits_keep_that_they_must_not_be_mirrored(tmp_path):
    pytest.importorskip("sklearn")
    same(data.load(data.prepare("digits", tmp_path / "out", size=8)), data.load("digits", size=8))


def test_the_same_images_give_the_same_bytes(tmp_path):
    tree = write_tree(tmp_path / "a" / "tree", MIXED, count=40)
    copy = shutil.copytree(tree, tmp_path / "b" / "tree", copy_function=shutil.copyfile)
    one = data.prepare(tree, tmp_path / "one", size=8, workers=1)
    other = data.prepare(copy, tmp_path / "other", size=8, workers=5)
    assert contents(one) == contents(other)
    assert set(contents(one)) == {
        "prepared.json",
        "train.npy",
        "train-labels.npy",
        "test.npy",
        "test-labels.npy",
    }


def test_numpy_reads_the_files(tmp_path):
    out = data.prepare(write_tree(tmp_path / "tree"), tmp_path / "out")
    dataset = data.load(out)
    assert (np.load(out / "train.npy") == dataset.train.pixels.numpy()).all()
    assert (np.load(out / "test-labels.npy") == dataset.test.labels.numpy()).all()


KILLED = """
import itertools, os, signal, sys
from daqakd.data import folder, preparing
preparing.SECONDS_BETWEEN_SAVES = 0.0
read, calls = folder.read_image, itertools.count(1)

def fatal(path, size):
    if next(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return read(path, size)

folder.read_image = fatal
folder.FILES_PER_TASK = 1
preparing.prepare(sys.argv[1], sys.argv[2], size=8, workers=1)
"""


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_killed_run_continues_and_ends_with_the_same_bytes(split, tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "tree", MIXED, count=20)
    whole, out = data.prepare(tree, tmp_path / "whole", size=8), tmp_path / "out"
    call = {"train": 30, "test": 60}[split]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(tree), str(out), str(call)], cwd=ROOT, check=False
    )
    assert killed.returncode == -9
    done = json.loads((out / "progress.json").read_text())["done"]
    assert done["train"] >= 20
    assert (done["test"] > 0) == (split == "test")
    with pytest.raises(InputError, match="has not finished there; run the same command again"):
        data.load(out)
    with open(out / f"{split}.npy", "ab") as file:
        file.write(b"half an image that was never noted")
    decoded = []
    read = folder.read_image
    monkeypatch.setattr(
        folder, "read_image", lambda path, size: (decoded.append(path), read(path, size))[1]
    )
    assert contents(data.prepare(tree, out, size=8)) == contents(whole)
    firsts = 2  # each split's shape comes from its first image
    assert len(decoded) == 80 - sum(done.values()) + firsts


def test_an_interrupted_run_of_other_images_starts_over(tmp_path):
    tree = write_tree(tmp_path / "tree", count=4)
    out = tmp_path / "out"
    out.mkdir()
    (out / "progress.json").write_text('{"identity": "another", "done": {"train": 5, "test": 9}}')
    (out / "train.npy").write_bytes(b"x" * 10_000)
    assert contents(data.prepare(tree, out)) == contents(data.prepare(tree, tmp_path / "whole"))


def test_an_interrupted_run_whose_images_changed_starts_over(tmp_path, monkeypatch):
    """A bitmap keeps its length whatever it shows."""
    tree, out = write_tree(tmp_path / "tree", count=10), tmp_path / "out"
    for path in [*tree.rglob("*.png")]:
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    read = folder.read_image

    def interrupted(path, size):
        if path.name == "9.bmp":
            raise KeyboardInterrupt
        return read(path, size)

    monkeypatch.setattr(preparing, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(folder, "FILES_PER_TASK", 1)
    with monkeypatch.context() as patch:
        patch.setattr(folder, "read_image", interrupted)
        with pytest.raises(KeyboardInterrupt):
            data.prepare(tree, out, workers=1)
    assert read_json(out / "progress.json")["done"]["train"] > 1
    first = tree / "train/cat/0.bmp"
    length = first.stat().st_size
    Image.new("RGB", (8, 8), (1, 2, 3)).save(first)
    assert first.stat().st_size == length
    assert contents(data.prepare(tree, out)) == contents(data.prepare(tree, tmp_path / "whole"))
    assert data.load(out).train.pixels[0, :, 0, 0].tolist() == [1, 2, 3]


def test_a_broken_file_is_named_and_the_next_run_continues(tmp_path):
    tree = write_tree(tmp_path / "tree", count=20)
    good = (tree / "train/dog/7.png").read_bytes()
    for bad in (good[:90], b"no", good[:60] + b"\xff" * (len(good) - 60)):
        (tree / "train/dog/7.png").write_bytes(bad)
        with pytest.raises(InputError, match=r"train/dog/7\.png: not a readable image.*replace it"):
            data.prepare(tree, tmp_path / "out")
        with pytest.raises(InputError, match=r"train/dog/7\.png: not a readable image"):
            data.load(tree)
    (tree / "train/dog/7.png").write_bytes(good)
    same(data.load(data.prepare(tree, tmp_path / "out")), data.load(tree))


def test_mixed_sizes_need_size(tmp_path):
    tree = write_tree(tmp_path / "tree", MIXED)
    with pytest.raises(InputError, match=r"12 x 9 pixels.*--size"):
        data.prepare(tree, tmp_path / "out")


def test_a_finished_directory_is_left_alone(tmp_path):
    tree = write_tree(tmp_path / "tree")
    out = data.prepare(tree, tmp_path / "out")
    before = {p.name: p.stat().st_mtime_ns for p in out.iterdir()}
    assert data.prepare(tree, out) == out
    assert {p.name: p.stat().st_mtime_ns for p in out.iterdir()} == before
    for change in (lambda: data.prepare(tree, out, size=4), lambda: data.prepare("digits", out)):
        with pytest.raises(InputError, match="was prepared from other images or sizes"):
            change()


@pytest.fixture
def out(tmp_path) -> Path:
    return data.prepare(write_tree(tmp_path / "tree"), tmp_path / "out")


def test_wrong_arguments(out, tmp_path, monkeypatch):
    tree = tmp_path / "tree"
    with pytest.raises(InputError, match=r"size: 16 asked for, but .* was prepared with 8 x 8"):
        data.load(out, size=16)
    with pytest.raises(InputError, match="is not empty"):
        data.prepare(tree, tree)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a file"):
        data.prepare(tree, tmp_path / "file")
    with pytest.raises(InputError, match="workers: expected an integer from 1"):
        data.prepare(tree, tmp_path / "new", workers=0)
    with pytest.raises(InputError, match="size: expected an integer from 1"):
        data.prepare(tree, tmp_path / "new", size=0)
    with pytest.raises(InputError, match=r"out: .*is a file or lies below one"):
        data.prepare(tree, tmp_path / "file" / "below")
    full = shutil.disk_usage(tmp_path)._replace(free=2303)  # 12 images of 192 bytes need 2304
    monkeypatch.setattr(shutil, "disk_usage", lambda path: full)
    with pytest.raises(InputError, match=r"needs 2,304 more bytes.*has 2,303 free"):
        data.prepare(tree, tmp_path / "new")


def black(count: int) -> str:
    """Return the hash of ``count`` zeros; a wrong one from 2 GiB on, which nobody reads."""
    digest = hashlib.sha256()
    for start in range(0, min(count, 2**31), 2**24):
        digest.update(bytes(min(2**24, count - start)))
    return digest.hexdigest()


def grown(out: Path, count: int, side: int) -> Path:
    """Make a prepared directory hold ``count`` black images; they take no room on the disk."""
    facts = json.loads((out / "prepared.json").read_text())
    shape = (count, 3, side, side)
    with open(out / "train.npy", "wb") as file:
        preparing._header(file, shape)
        file.truncate(file.tell() + int(np.prod(shape)))
    np.save(out / "train-labels.npy", np.arange(count) % 2)
    small = np.zeros((6, 3, side, side), np.uint8)
    np.save(out / "test.npy", small)
    labels = hashlib.sha256((out / "train-labels.npy").read_bytes()).hexdigest()
    train = {"images": count, "labels_sha256": labels, "sha256": black(int(np.prod(shape)))}
    test = {**facts["splits"]["test"], "sha256": black(small.nbytes)}
    note(out, size=side, splits={"train": train, "test": test})
    return out


def test_a_set_larger_than_memory_can_be_used(out):
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    side = 512
    count = 2 * pages // (3 * side * side)
    dataset = data.load(grown(out, count, side), holdout=0)
    assert dataset.train.pixels.nbytes > 1.9 * pages
    assert dataset.train.pixels[[0, count - 1]].sum() == 0


MEASURED = """
import sys, torch
from daqakd import data
from daqakd.augment import InputSpec, Stream, get_strategy
from daqakd.augment import InputSpec
from daqakd.ranking import RankConfig
from daqakd.ranking.job import fingerprint, make_job
from daqakd.train import accuracy
from tests.helpers.small import SmallNet

def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024

def use(pixels, labels, *rest):
    for name in ("minimal", "cutmix", "trivialaugment"):
        for resident in (True, False):
            inputs = InputSpec((0, 0, 0), (1, 1, 1))
            stream = Stream(pixels, labels, get_strategy(name), inputs=inputs, seed=0,
                            resident=resident)
            for batch, _ in zip(stream.epoch(0, 8), range(2)):
                pass

use(torch.zeros(64, 3, 64, 64, dtype=torch.uint8), torch.arange(64) % 2)
net = SmallNet(2)
before = peak()
dataset = data.load(sys.argv[1])
use(dataset.train.pixels, dataset.train.labels)
accuracy(net, dataset.train, dataset.inputs, chosen=dataset.heldout[:50])
fingerprint(make_job(net, dataset, RankConfig(images=60)))
print(peak() - before, dataset.train.pixels.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_nothing_copies_or_reads_the_whole_set(out):
    grown(out, 25_000, 128)
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(out)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    growth, held = map(int, done.stdout.split())
    assert held > 1.2e9
    assert growth < held / 10, f"{growth / 2**20:.0f} MiB more for a mapped set"


@pytest.mark.parametrize("name", ["minimal", "cutmix", "augmix", "mixup", "own"])
def test_streams_give_the_same_batches_whether_pixels_are_resident(name):
    if name == "own":
        name = "prepare-own"
        register_strategy(name, lambda image: image.transpose(Image.Transpose.ROTATE_90))
    images = small_images(40)

    def batches(resident):
        inputs = InputSpec((0.5,) * 3, (0.25,) * 3)
        settings = {"inputs": inputs, "seed": 3, "resident": resident}
        stream = Stream(images.pixels, images.labels, get_strategy(name), **settings)
        return list(stream.epoch(1, 8))

    for one, other in zip(batches(True), batches(False), strict=True):
        assert torch.equal(one.images, other.images)
        assert torch.equal(one.targets(3), other.targets(3))
