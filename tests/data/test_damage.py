"""Damaged prepared data sets: each file, finished or not, emptied, cut, zeroed, flipped, holed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from daqakd import InputError, data
from daqakd.data import folder, preparing
from daqakd.ranking import RankConfig
from daqakd.ranking.job import fingerprint, make_job

from ..helpers.small import SmallNet
from .test_data import write_tree
from .test_prepare import MIXED, contents, grown, note, out, same

__all__ = ["out"]  # a fixture


def flip(content: bytes, place: int) -> bytes:
    return content[:place] + bytes([content[place] ^ 16]) + content[place + 1 :]


DAMAGE = {
    "empty": lambda c: b"",
    "truncated": lambda c: c[: len(c) // 2],
    "cut": lambda c: c[:-2],
    "longer": lambda c: c + b"x",
    "zeroed": lambda c: bytes(len(c)),
    "hole": lambda c: c[: len(c) // 2] + bytes(len(c) // 4) + c[len(c) * 3 // 4 :],
    "first bit": lambda c: flip(c, 0),
    "middle bit": lambda c: flip(c, len(c) // 2),
    "last bit": lambda c: flip(c, len(c) - 2),
}
FILES = ("prepared.json", "train.npy", "train-labels.npy", "test.npy", "test-labels.npy")


def load_all(root: Path) -> data.Dataset:
    """Load a prepared data set and check its pixels, as rankings and trainings do."""
    dataset = data.load(root)
    for split in (dataset.train, dataset.test):
        split.digest()
    return dataset


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", FILES)
def test_damage_is_named(out, tmp_path, name, how):
    whole = (out / name).read_bytes()
    (out / name).write_bytes(DAMAGE[how](whole))
    with pytest.raises(InputError, match=rf"{name}: .*; delete {out} and prepare") as error:
        load_all(out)
    assert "\n" not in str(error.value)
    with pytest.raises(InputError, match=rf"{name}: .*; delete {out} and prepare"):
        data.prepare(tmp_path / "tree", out)
    shutil.rmtree(out)
    assert (data.prepare(tmp_path / "tree", out) / name).read_bytes() == whole


@pytest.mark.parametrize("name", FILES[1:])
def test_no_bit_of_arrays_goes_unnoticed(out, name):
    whole = (out / name).read_bytes()
    before = data.load(out)
    for place in range(len(whole)):
        (out / name).write_bytes(flip(whole, place))
        try:
            dataset = load_all(out)
        except InputError as error:
            assert f"{name}: damaged" in str(error)  # noqa: PT017
        else:
            assert place < 128, "only the blank rest of a header may change"
            same(dataset, before)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda o: (o / "test.npy").unlink(), r"test\.npy: damaged.*No such file"),
        (lambda o: (o / "test-labels.npy").unlink(), r"test-labels\.npy: damaged.*No such file"),
        (lambda o: note(o, size=9), r"holds uint8 \[6, 3, 8, 8\], expected uint8 \[6, 3, 9, 9\]"),
        (lambda o: note(o, format="x"), "is of format x, this version reads daqakd-images-2"),
        (lambda o: (o / "prepared.json").write_text("[]"), r"prepared\.json: damaged"),
        (lambda o: np.savez(o / "test.npy", o=0), r"test\.npy: damaged"),
    ],
    ids=["missing", "labels", "shape", "format", "list", "archive"],
)
def test_other_content_is_named(out, spoil, message):
    (out / "test.npy.npz").unlink(missing_ok=True)
    spoil(out)
    if (out / "test.npy.npz").exists():
        (out / "test.npy.npz").rename(out / "test.npy")
    with pytest.raises(InputError, match=message):
        data.load(out)


def test_a_ranking_notices_damaged_pixels(out):
    job = make_job(SmallNet(2), data.load(grown(out, 200, 8)), RankConfig())
    fingerprint(job)
    content = (out / "train.npy").read_bytes()
    (out / "train.npy").write_bytes(flip(content, len(content) // 2))
    with pytest.raises(InputError, match=r"train\.npy: damaged"):
        fingerprint(make_job(SmallNet(2), data.load(out), RankConfig()))


def unfinished(tree: Path, out: Path) -> None:
    """Prepare a part of a tree: the whole of ``train`` and nothing of ``test``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(preparing, "SECONDS_BETWEEN_SAVES", 0.0)
        read = folder.read_image

        def fatal(path, size):
            if path.match("test/*/1.png"):  # the first one is read before all, for its shape
                raise KeyboardInterrupt
            return read(path, size)

        patch.setattr(folder, "read_image", fatal)
        with pytest.raises(KeyboardInterrupt):
            data.prepare(tree, out, size=8, workers=1)


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("name", ["progress.json", "train.npy"])
def test_what_is_damaged_while_unfinished_is_made_again(tmp_path, name, how):
    tree = write_tree(tmp_path / "tree", MIXED, count=20)
    whole, out = data.prepare(tree, tmp_path / "whole", size=8), tmp_path / "out"
    unfinished(tree, out)
    assert json.loads((out / "progress.json").read_text())["done"]["train"] == 40
    (out / name).write_bytes(DAMAGE[how]((out / name).read_bytes()))
    assert contents(data.prepare(tree, out, size=8)) == contents(whole)


@pytest.mark.parametrize("temporary", [".progress.json.tmp", ".progress.json.12-0a1b2c3d.tmp"])
@pytest.mark.parametrize("begun", [False, True])
def test_half_written_files_of_a_killed_run_do_not_stop_the_next(tmp_path, temporary, begun):
    tree = write_tree(tmp_path / "tree", MIXED, count=20)
    whole, out = data.prepare(tree, tmp_path / "whole", size=8), tmp_path / "out"
    out.mkdir()
    if begun:
        unfinished(tree, out)
    (out / temporary).write_text("{")
    assert contents(data.prepare(tree, out, size=8)) == contents(whole)
