"""Tiny ImageNet in the layouts that people have: the same images, labels and classes from each."""

import io
import json
import sys

import pytest
import torch
from PIL import Image

from daqakd import InputError, data
from daqakd.cli.main import main
from daqakd.data import export, parquet, preparing

from ..helpers.refusals import refused
from ..helpers.tiny import (
    CLASSES,
    rows_of,
    sort_val,
    write_export,
    write_parquet,
    write_zip_layout,
)

OBLONG = io.BytesIO()
Image.new("RGB", (9, 8)).save(OBLONG, "PNG")


@pytest.fixture
def zipped(tmp_path):
    return write_zip_layout(tmp_path / "zip")


@pytest.fixture
def exported(zipped, tmp_path):
    pytest.importorskip("pyarrow")
    return write_export(zipped, tmp_path / "export")


def same(one: data.Dataset, other: data.Dataset) -> None:
    assert one.classes == other.classes == CLASSES
    for a, b in ((one.train, other.train), (one.test, other.test)):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.labels, b.labels)
    assert torch.equal(one.heldout, other.heldout)
    assert one.inputs == other.inputs


def test_the_zip_s_layout(zipped):
    found = data.load(zipped)
    assert found.test.labels.tolist() == [1, 0, 2, 1, 0, 2]
    assert found.train.pixels.shape == (12, 3, 8, 8)


def test_val_sorted_into_class_folders_is_the_same_images(zipped, tmp_path):
    before = data.load(zipped)
    after = data.load(sort_val(zipped))  # val_annotations.txt and an empty images/ are left
    order = before.test.labels.argsort(stable=True)
    assert torch.equal(after.test.pixels, before.test.pixels[order])
    assert torch.equal(after.test.labels, before.test.labels[order])
    assert after.classes == before.classes


def test_an_export_is_the_zip_s_images_pixel_for_pixel(zipped, exported):
    same(data.load(exported), data.load(zipped))
    same(data.load(exported, size=16, seed=3), data.load(zipped, size=16, seed=3))


@pytest.mark.parametrize("place", ["", "default/{}", "{}"])
def test_places_of_an_export(zipped, tmp_path, place):
    pytest.importorskip("pyarrow")
    root = tmp_path / "export"
    for split in ("train", "validation"):
        name = f"{split}.parquet" if not place else "0000.parquet"
        write_parquet(root / place.format(split) / name, rows_of(zipped, split), [*CLASSES])
    same(data.load(root), data.load(zipped))


@pytest.mark.parametrize("layout", ["zip", "export"])
def test_it_is_found_by_name(zipped, exported, tmp_path, monkeypatch, layout):
    name = "tiny-imagenet-200" if layout == "zip" else "tiny-imagenet"
    wanted = data.load(zipped)
    (tmp_path / layout).rename(tmp_path / name)
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    same(data.load("tiny-imagenet"), wanted)


def test_images_from_any_row_on(exported, monkeypatch):
    monkeypatch.setattr(parquet, "ROWS_PER_TASK", 2)
    train = export.find_parquet(exported, None)[1]
    whole = list(train.images())
    assert len(whole) == 12
    for start in range(13):
        rest = list(train.images(start, workers=2))
        assert len(rest) == 12 - start
        assert all((a == b).all() for a, b in zip(rest, whole[start:], strict=True))


def test_preparing_and_ranking_take_it(exported, zipped, tmp_path, capsys):
    out = str(tmp_path / "prepared")
    assert main(["data", "prepare", str(exported), "--out", out]) == 0
    same(data.load(out), data.load(zipped))
    assert main(["data", "prepare", str(exported), "--out", out]) == 0  # nothing has changed
    rows = rows_of(zipped, "valid")[:-1]
    write_parquet(next(exported.glob("data/valid*")), rows, [*CLASSES])
    assert main(["data", "prepare", str(exported), "--out", out]) == 2
    assert "was prepared from other images" in capsys.readouterr().err


def test_classes_without_names_are_numbers(zipped, tmp_path):
    pytest.importorskip("pyarrow")
    for split in ("train", "test"):
        rows = [
            {"img": row["image"]["bytes"], "label": row["label"]} for row in rows_of(zipped, split)
        ]
        write_parquet(tmp_path / "x" / f"{split}.parquet", rows)
    found = data.load(tmp_path / "x")
    assert found.classes == ("0", "1", "2")
    assert torch.equal(found.train.pixels, data.load(zipped).train.pixels)


def test_a_test_split_without_labels_is_passed_over(exported, zipped):
    unknown = [{**row, "label": -1} for row in rows_of(zipped, "valid")]
    path = write_parquet(exported / "data/test-00000-of-00001.parquet", unknown, [*CLASSES])
    same(data.load(exported), data.load(zipped))
    for valid in exported.glob("data/valid*"):
        valid.unlink()
    refused(lambda: data.load(exported), f"{path}: label -1 is there .* from 0 below 3")


def changed(exported, change):
    """Write the second file of training images with another last row."""
    path = sorted(exported.glob("data/train*"))[1]
    source = exported.parent / "zip"
    rows = rows_of(source, "train")[6:]
    rows[-1] = change(rows[-1])
    return write_parquet(path, rows, [*CLASSES])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: {**r, "label": None}, r"parquet \(row 5\): label is None, expected an integer"),
        (lambda r: {**r, "label": 3}, r"label 3 is there .* expected from 0 below 3"),
        (
            lambda r: {**r, "label": 2**40},
            r"\(row 5\): label is 1099511627776, expected an integer",
        ),
        (
            lambda r: {**r, "image": {"bytes": None, "path": "a.JPEG"}},
            r"parquet \(row 5\): has no image, only what names one; export",
        ),
        (
            lambda r: {**r, "image": {"bytes": b"no", "path": None}},
            r"parquet \(row 5\): not a readable image \(of no format",
        ),
        (
            lambda r: {**r, "image": {"bytes": OBLONG.getvalue(), "path": None}},
            r"parquet \(row 5\): is 9 x 8 pixels, but .*00000-of.* \(row 0\) is 8 x 8; .*--size",
        ),
    ],
)
def test_rows_that_cannot_be_meant(exported, change, message):
    changed(exported, change)
    refused(lambda: data.load(exported), message)


def test_files_that_cannot_be_meant(exported, zipped):
    first, second = sorted(exported.glob("data/train*"))
    content = second.read_bytes()
    second.unlink()
    refused(lambda: data.load(exported), "expected 2 files train-., numbered from 0, found train-")
    second.write_bytes(content[:-9])
    refused(lambda: data.load(exported), "00001-of-00002.*: cannot be read as Parquet")
    second.write_bytes(b"")
    refused(lambda: data.load(exported), "cannot be read as Parquet .* download it again")
    write_parquet(second, [{"picture": b"x", "label": 0}])
    refused(lambda: data.load(exported), "expected columns image .* found picture, label")
    write_parquet(second, [{"image": b"x", "class": 0}])
    refused(lambda: data.load(exported), "expected columns image .* found image, class")
    second.write_bytes(content)
    other = first.with_name("more.parquet")
    other.write_bytes(content)
    refused(lambda: data.load(exported), "more.parquet: its name tells no split; expected train-")
    other.unlink()
    for valid in exported.glob("data/valid*"):
        valid.unlink()
    refused(lambda: data.load(exported), "expected train-.* and test-.*, found train alone")


def test_a_class_without_training_images(zipped, tmp_path):
    pytest.importorskip("pyarrow")
    rows = [row for row in rows_of(zipped, "train") if row["label"] != 1]
    write_parquet(tmp_path / "x/train.parquet", rows, [*CLASSES])
    write_parquet(tmp_path / "x/valid.parquet", rows, [*CLASSES])
    refused(lambda: data.load(tmp_path / "x"), "class 'n01629819' has no training images")


def test_without_pyarrow_a_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for name in ("train.parquet", "valid.parquet"):
        (tmp_path / name).write_bytes(b"PAR1")
    refused(lambda: data.load(tmp_path), r"need pyarrow: pip install 'daqakd\[parquet\]'")


def test_a_tree_with_a_parquet_file_in_it_stays_a_tree(zipped):
    (zipped / "metadata.parquet").write_bytes(b"PAR1")
    assert data.load(zipped).classes == CLASSES


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("", r"val_annotations.txt: names no images"),
        (
            "val_0.JPEG\tn01443537\nval_0.JPEG\tn01443537\n",
            r"annotations.txt: names val_0.JPEG more than once",
        ),
        ("val_0.JPEG\tn0\n", r"line 1: class 'n0' has no folder in train/"),
        ("val_0.JPEG n01443537\n", r"line 1: expected the name of a file below images/, a tab"),
        ("val_9.JPEG\tn01443537\n", r"val_9.JPEG: not a readable image .*No such file"),
    ],
)
def test_bad_annotations(zipped, lines, message):
    (zipped / "val/val_annotations.txt").write_text(lines)
    with pytest.raises(InputError, match=message):
        data.load(zipped)


def test_a_preparation_that_was_cut_short_ends_with_the_same_bytes(exported, tmp_path, monkeypatch):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    data.prepare(exported, whole)
    decoded, read = [], parquet.decode

    def stops(file, size, name):
        decoded.append(name)
        if len(decoded) == 9:
            raise KeyboardInterrupt
        return read(file, size, name)

    monkeypatch.setattr(parquet, "ROWS_PER_TASK", 1)
    monkeypatch.setattr(preparing, "SECONDS_BETWEEN_SAVES", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "decode", stops)
        with pytest.raises(KeyboardInterrupt):
            data.prepare(exported, cut, workers=1)
    assert json.loads((cut / "progress.json").read_text())["done"]["train"] > 0
    data.prepare(exported, cut)
    for path in whole.iterdir():
        assert (cut / path.name).read_bytes() == path.read_bytes()
