"""Bad input to load, wrap and prepare: one sentence each."""

# mypy: disable-error-code="var-annotated"

import math
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from daqakd import InputError
from daqakd.data import load, prepare, wrap

from ..helpers.refusals import Row, check_sentence, refused
from ..helpers.small import small_dataset, write_images

NAN, HUGE = math.nan, 10**400
DATA = small_dataset(60)
PIXELS = torch.zeros(3, 16, 16, dtype=torch.uint8)
PAIRS = [(PIXELS, 0), (PIXELS, 1)]


def digits(**options):
    return load("digits", **options)


def wrapped(**options):
    return wrap(PAIRS, PAIRS, **options)


def one(image=PIXELS, label=0):
    return wrap([(image, label)], PAIRS)


NO_IMAGES: list[Any] = [None, "x.png", b"x", PIXELS.float(), PIXELS[0], PIXELS[:, :0]]
NO_IMAGES += [PIXELS.numpy(), PIXELS.tolist(), torch.zeros(5, 4, 4, dtype=torch.uint8)]
NO_SHARES = (1, -0.1, NAN, "x", None, True, HUGE, [0.1])
NO_SEEDS = (2**64, -(2**63) - 1, None, 1.5, "0", True, HUGE)
ROWS: list[Row] = [
    *(
        ("name_or_path: expected a path", lambda n=n: load(n))
        for n in (None, 3, "", "\0", b"digits", [], True)
    ),
    *(("no such folder or data set", lambda n=n: load(n)) for n in ("nope", "/dev/null", "cifar")),
    *(("mean: expected three numbers", lambda m=m: digits(mean=m)) for m in (3, "abc", [1, 2], [])),
    *(
        ("std: expected three positive", lambda s=s: digits(std=s))
        for s in ([0, 1, 1], [NAN] * 3, [])
    ),
    *(
        ("size: expected an integer from 1 to 32768", lambda s=s: digits(size=s))
        for s in (0, -1, "32", 1.5, True, NAN, 2**31, HUGE, np.int64(8))
    ),
    ("size: 1,797 images of 32768 x 32768 pixels need .* memory", lambda: digits(size=2**15)),
    *(("holdout: expected a share", lambda h=h: digits(holdout=h)) for h in NO_SHARES),
    *(("seed: expected an integer from -2.63", lambda s=s: digits(seed=s)) for s in NO_SEEDS),
    *(
        ("train: expected a data set with a length", lambda d=d: wrap(d, PAIRS))
        for d in (None, 3, [], {}, iter(PAIRS))
    ),
    *(
        (r"train: item 0: expected \(image, label\)", lambda d=d: wrap(d, PAIRS))
        for d in ("x", [1], [(PIXELS,)], [(PIXELS, 0, 1)], [None])
    ),
    *(("train: item 0: expected a PIL image or uint8", lambda i=i: one(i)) for i in NO_IMAGES),
    *(
        ("train: item 0: expected an integer label from 0", lambda y=y: one(label=y))
        for y in (-1, 0.5, "0", None, 2**70, HUGE, NAN, [0])
    ),
    ("train: images differ in size", lambda: wrap([*PAIRS, (PIXELS[:, :8], 1)], PAIRS)),
    *(("test: expected a data set", lambda d=d: wrap(PAIRS, d)) for d in (None, [], 3)),
    ("test: item 0: expected an integer label", lambda: wrap(PAIRS, [(PIXELS, 9)])),
    (
        "test: images are 8 x 16 pixels, not square; pass a size",
        lambda: wrap(PAIRS, [(PIXELS[:, :, :8], 0)]),
    ),
    *(
        ("classes: expected", lambda c=c: wrapped(classes=c))
        for c in (3, [], "ab", [1, 2], ["a", "a"], {"a": 0, "b": 1}, [None, "a"])
    ),
    ("train: item 1: expected an integer label from 0 below 1", lambda: wrapped(classes=["a"])),
    *(("flip: expected True or False", lambda f=f: wrapped(flip=f)) for f in ("no", None, 1)),
    *(("name: expected a string", lambda n=n: wrapped(name=n)) for n in (3, None)),
    *(("size: expected an integer", lambda s=s: wrapped(size=s)) for s in (-1, "x", 2**40)),
    *(("mean: expected three", lambda m=m: wrapped(mean=m)) for m in (0.5, (HUGE, 0, 0))),
    *(("unknown option 'size'", lambda: DATA.with_inputs(size=3)),),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        *(({"out": o}, "out: expected a path") for o in (None, 3, "", "\0", b"x", [])),
        *(
            ({"workers": w}, "workers: expected an integer from 1")
            for w in (0, "x", 1.5, True, 2**40)
        ),
        *(({"size": s}, "size: expected an integer from 1") for s in (0, "x", HUGE, NAN)),
        *(({"quiet": q}, "quiet: expected True or False") for q in (None, 1)),
        ({"name_or_path": None}, "name_or_path: expected"),
        ({"name_or_path": "nope"}, "nope: no such folder"),
        ({"out": "file"}, "out: .*file is a file"),
        ({"out": "file/below"}, "out: .*is a file or lies below one"),
        ({"out": "."}, "out: .* is not empty; name a new directory"),
        ({"out": "/proc/x"}, r"out: /proc/x cannot be written .*No such file"),
        ({"out": "n" * 300}, "out: n+ cannot be .*File name too long"),
    ],
    ids=str,
)
def test_preparing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    refused(lambda: prepare(**{"name_or_path": "digits", "out": "o"} | options), message)
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_splits_of_different_sizes_are_not_prepared(tmp_path):
    tree = write_images(tmp_path / "tree", train=6, test=3)
    for path in (tree / "test").rglob("*.png"):
        Image.new("RGB", (8, 8)).save(path)
    for call in (lambda: load(tree), lambda: prepare(tree, tmp_path / "out")):
        refused(call, "test: images are 8 x 8 pixels, but those of train are 16 x 16; pass a size")
    assert not (tmp_path / "out").exists()
    assert load(tree, size=8).size == 8


@pytest.mark.parametrize("place", ["", "train", "train/class0", "test"])
def test_a_tree_with_something_else_in_its_place(tmp_path, place):
    tree = write_images(tmp_path / "tree", train=6, test=3)
    (tree / place).rename(tmp_path / "away")
    (tree / place).touch()
    with pytest.raises(InputError) as caught:
        load(tree)
    check_sentence(str(caught.value))
