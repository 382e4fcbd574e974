"""Image files of any kind: scaled right, or refused in a sentence that names the file."""

import io
import os
import struct
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from daqakd import InputError, data

from ..helpers.small import small_dataset
from .test_data import write_tiny_imagenet, write_tree

DEEP = np.arange(0, 65536, 257 * 4 + 1, dtype=np.uint16)[:64].reshape(8, 8)
SCALED = np.round(DEEP / 257)
TIFF_TAGS = {"width": 256, "height": 257, "bits": 258, "photometric": 262, "format": 339}


def tiff(values: np.ndarray, **tags: int) -> bytes:
    """Return an uncompressed TIFF of one strip with one channel, which Pillow cannot write."""
    big = values.dtype.byteorder == ">"
    order, content = ">" if big else "<", values.tobytes()
    facts = {"width": values.shape[1], "height": values.shape[0], "bits": 8 * values.itemsize}
    facts |= {"photometric": 1, "format": 1, **tags}
    entries = {TIFF_TAGS[name]: value for name, value in facts.items()}
    entries |= {259: 1, 273: 0, 277: 1, 278: values.shape[0], 279: len(content)}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    parts = [b"MM" if big else b"II", struct.pack(order + "HIH", 42, 8, len(entries))]
    parts += [struct.pack(order + "HHII", t, 4, 1, v) for t, v in sorted(entries.items())]
    return b"".join([*parts, struct.pack(order + "I", 0), content])


def encoded(kind: str, values: np.ndarray = DEEP) -> bytes:
    content = io.BytesIO()
    Image.fromarray(values).save(content, kind)
    return content.getvalue()


def twelve_bits(values: np.ndarray) -> np.ndarray:
    """Pack pairs of 12-bit values into three bytes."""
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    packed = [first >> 4, (first & 15) << 4 | second >> 8, second & 255]
    return np.stack(packed, -1).reshape(len(values), -1).astype(np.uint8)


def tree_with(tmp_path, content: bytes, name: str = "0.png"):
    tree = write_tree(tmp_path / "tree")
    (tree / "train/cat/0.png").unlink()
    (tree / "train/cat" / name).write_bytes(content)
    return tree


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("0.png", encoded("PNG"), SCALED),
        ("0.tif", encoded("TIFF"), SCALED),
        ("0.pgm", encoded("PPM"), SCALED),
        ("0.tiff", tiff(DEEP.astype(">u2")), SCALED),
        ("0.tiff", tiff(DEEP, photometric=0), np.round((65535 - DEEP) / 257)),
        (
            "0.tiff",
            tiff(twelve_bits(DEEP >> 4), width=8, bits=12),
            np.round((DEEP >> 4) / 4095 * 255),
        ),
    ],
    ids=["png", "tiff", "pgm", "big-endian", "white-is-zero", "twelve-bits"],
)
def test_deep_grey_is_scaled(tmp_path, name, content, wanted):
    tree = tree_with(tmp_path, content, name)
    prepared = data.prepare(tree, tmp_path / "out")
    for dataset in (data.load(tree), data.load(prepared)):
        assert (dataset.train.pixels[0] == torch.from_numpy(wanted).byte()).all()


@pytest.mark.parametrize("size", [None, 5])
def test_wrapped_deep_grey_is_scaled_before_it_is_resized(size):
    def wrapped(image):
        return data.wrap([(image, 0)], [(image, 0)], size=size, classes=["a", "b"])

    dataset = wrapped(Image.fromarray(DEEP))
    same = wrapped(Image.fromarray(SCALED.astype(np.uint8)))
    assert torch.equal(dataset.train.pixels, same.train.pixels)


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("0.tif", encoded("TIFF", DEEP.astype(np.float32)), "floats"),
        ("0.pgm", encoded("PPM", DEEP.astype(np.float32)), "floats"),
        ("0.tif", encoded("TIFF", DEEP.astype(np.int32)), "32-bit integers"),
        ("0.tif", tiff(DEEP, format=2), "32-bit integers"),
    ],
    ids=["float", "pfm", "32-bit", "signed"],
)
def test_pixels_without_a_range_are_refused(tmp_path, name, content, kind):
    tree = tree_with(tmp_path, content, name)
    for use in (data.load, lambda t: data.prepare(t, tmp_path / "out")):
        with pytest.raises(InputError, match=rf"train/cat/{name}: its pixels are {kind}.*save it"):
            use(tree)


def test_wrapped_floats_are_refused():
    items = [(Image.fromarray(DEEP.astype(np.float32)), 0)]
    with pytest.raises(InputError, match="train: item 0: its pixels are floats"):
        data.wrap(items, items)


@pytest.mark.parametrize(
    "content",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n",
        encoded("TGA", DEEP.astype(np.uint8)),
        encoded("ICO", DEEP.astype(np.uint8)),
    ],
    ids=["eps", "tga", "ico"],
)
def test_other_formats_are_not_decoded(tmp_path, content, monkeypatch):
    started: list[object] = []
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *a, **k: started.append(a))
    with pytest.raises(InputError, match=r"train/cat/0\.png: not a readable image"):
        data.load(tree_with(tmp_path, content))
    assert not started


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("place", ["train/cat/0.png", "test/dog/2.png"])
def test_a_pipe_is_not_opened(tmp_path, place):
    tree = write_tree(tmp_path / "tree")
    (tree / place).unlink()
    os.mkfifo(tree / place)
    for use in (data.load, lambda t: data.prepare(t, tmp_path / "out")):
        with pytest.raises(InputError, match=rf"{place}: is not a regular file; remove it"):
            use(tree)


def test_a_dangling_link_is_named(tmp_path):
    tree = write_tree(tmp_path / "tree")
    (tree / "train/cat/0.png").unlink()
    (tree / "train/cat/0.png").symlink_to(tmp_path / "nowhere.png")
    for use in (data.load, lambda t: data.prepare(t, tmp_path / "out")):
        with pytest.raises(InputError, match=r"No such file.*train/cat/0\.png"):
            use(tree)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF"])
def test_a_small_file_of_a_huge_image_is_refused(tmp_path, kind):
    content = io.BytesIO()
    options = {"compression": "tiff_deflate"} if kind == "TIFF" else {}
    Image.new("L", (10_000, 9_000)).save(content, kind, **options)
    assert len(content.getvalue()) < 600_000
    tree = tree_with(tmp_path, content.getvalue())
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(InputError, match=r"0\.png: not a readable image \(10000 x 9000 pixels"),
    ):
        data.load(tree, size=8)


def test_hidden_names_are_no_images_and_no_classes(tmp_path):
    tree = write_tree(tmp_path / "tree")
    before = data.load(tree)
    for hidden in ("train/cat/.ipynb_checkpoints", "train/.cache", "test/.cache", "test/cat/.a/b"):
        (tree / hidden).mkdir(parents=True)
        (tree / hidden / "0.png").write_bytes((tree / "train/cat/0.png").read_bytes())
    for place in ("train", "test", "train/cat"):
        for name in ("@eaDir", "__MACOSX", "lost+found", "__pycache__"):
            (tree / place / name).mkdir()
            (tree / place / name / "0.png").write_bytes((tree / "train/cat/0.png").read_bytes())
    (tree / "train/dog/._0.png").write_bytes(b"a file manager's notes")
    (tree / "train/dog/folder.png").mkdir()
    after = data.load(tree)
    assert after.classes == before.classes
    assert torch.equal(after.train.pixels, before.train.pixels)
    assert torch.equal(after.test.pixels, before.test.pixels)


def test_a_folder_whose_own_path_is_hidden_is_read(tmp_path):
    assert len(data.load(write_tree(tmp_path / ".cache" / "tree")).train) == 6


@pytest.mark.parametrize("content", [(), ("0.png",), ("unsorted/0.png",)])
def test_val_serves_where_test_has_no_classes(tmp_path, content):
    tree = write_tree(tmp_path / "tree", splits=("train", "val"))
    (tree / "test").mkdir()
    for name in content:
        (tree / "test" / name).parent.mkdir(exist_ok=True)
        (tree / "test" / name).write_bytes((tree / "val/cat/0.png").read_bytes())
    assert len(data.load(tree).test) == 6


@pytest.mark.parametrize(
    "line", ["../../../out.png\tn01", "/etc/x.png\tn01", "a/../../out.png\tn01", "val_0.png"]
)
def test_annotations_stay_in_their_folder(tmp_path, line):
    tree = write_tiny_imagenet(tmp_path / "tree")
    with open(tree / "val/val_annotations.txt", "a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"annotations\.txt, line 4: expected the name of a file"):
        data.load(tree)


def test_annotations_name_files_by_their_bytes(tmp_path):
    tree = write_tiny_imagenet(tmp_path / "tree")
    (tree / "val/val_annotations.txt").write_bytes(b"\xff\xe4.png\tn02\nval_0.png\tn01\n")
    with pytest.raises(InputError, match="not a readable image"):
        data.load(tree)
    (tree / "val/images/val_1.png").rename(tree / "val/images" / os.fsdecode(b"\xff\xe4.png"))
    assert data.load(tree).test.labels.tolist() == [1, 0]


def test_oblong_images_are_called_oblong(tmp_path):
    with pytest.raises(InputError, match=r"is 6 x 8 pixels, not square;.*--size"):
        data.load(write_tree(tmp_path, sizes=((8, 6),)))


@pytest.mark.parametrize("size", [0, -3, 1.5, "8", True])
def test_sizes_that_cannot_be_meant(tmp_path, size):
    tree = write_tree(tmp_path)
    items = [(Image.new("RGB", (8, 8)), 0)]
    for use in (lambda: data.load(tree, size=size), lambda: data.wrap(items, items, size=size)):
        with pytest.raises(InputError, match="size: expected an integer from 1 to 32768, got"):
            use()


@pytest.mark.parametrize("path", [None, 3, b"digits", "x\0y", "x" * 5000])
def test_paths_that_cannot_be_meant(path):
    with pytest.raises(InputError):
        data.load(path)


PICTURE = Image.new("RGB", (8, 8))


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([(PICTURE, 0), (PICTURE, -1)], r"train: item 1: expected an integer label.*got -1"),
        ([(PICTURE, 7)], r"train: item 0: .*label from 0 below 2, the number of classes, got 7"),
        ([(PICTURE, 0.7)], r"train: item 0: expected an integer label.*got 0\.7"),
        ([(PICTURE, torch.tensor(1.0))], "train: item 0: expected an integer label"),
        ([(PICTURE, None)], "train: item 0: expected an integer label.*got None"),
        ([(PICTURE, "a")], "train: item 0: expected an integer label"),
        ([(np.zeros((8, 8, 3), np.uint8), 0)], r"expected a PIL image or uint8.*got ndarray"),
        ([(torch.zeros(8, 8, 3).byte(), 0)], r"got torch\.uint8 \(8, 8, 3\).*channels come first"),
        ([(torch.zeros(8, 8).byte(), 0)], r"got torch\.uint8 \(8, 8\)"),
        ([(torch.zeros(3, 0, 4).byte(), 0)], r"got torch\.uint8 \(3, 0, 4\)"),
        ([(Image.new("RGB", (8, 6)), 0)] * 4, "train: images are 8 x 6 pixels, not square.*size="),
        (
            [(Image.new("RGB", (6, 6)), 0)] * 4,
            "test: images are 8 x 8 .* of train are 6 x 6.*size=",
        ),
        ([PICTURE], r"train: item 0: expected \(image, label\), got Image"),
        ([(PICTURE, 0, 1)], r"train: item 0: expected \(image, label\), got tuple"),
        ([], "train: expected a data set with a length and items, got an empty one"),
        (None, "train: expected a data set.*got NoneType"),
        (iter([(PICTURE, 0)]), "train: expected a data set.*got list_iterator"),
    ],
)
def test_items_that_cannot_be_meant(items, message):
    with pytest.raises(InputError, match=message):
        data.wrap(items, [(PICTURE, 0)], classes=["a", "b"])


def test_test_labels_must_be_among_the_training_classes():
    with pytest.raises(InputError, match=r"test: item 0: .*below 2, the number of classes, got 2"):
        data.wrap([(PICTURE, 0), (PICTURE, 1)], [(PICTURE, 2)])


def test_labels_do_not_make_more_classes_than_images():
    with pytest.raises(InputError, match=r"item 1: .*below 2, the number of images, got 1000000"):
        data.wrap([(PICTURE, 0), (PICTURE, 10**12)], [(PICTURE, 0)])


def test_one_class_is_no_data_set():
    with pytest.raises(InputError, match=r"classes: expected at least two, got \['0'\]"):
        data.wrap([(PICTURE, 0)] * 3, [(PICTURE, 0)])


def test_test_images_have_the_size_of_training_images(tmp_path):
    tree = write_tree(tmp_path / "tree")
    for path in (tree / "test").rglob("*.png"):
        PICTURE.resize((16, 16)).save(path)
    message = "test: images are 16 x 16 pixels, but those of train are 8 x 8; pass a size"
    for use in (data.load, lambda tree: data.prepare(tree, tmp_path / "out")):
        with pytest.raises(InputError, match=message):
            use(tree)
    assert data.load(tree, size=8).test.shape() == (3, 8, 8)
    assert data.load(data.prepare(tree, tmp_path / "out", size=8)).test.shape() == (3, 8, 8)


@pytest.mark.parametrize("suffix", ["jfif", "JPE", "pnm"])
def test_rarer_suffixes(tmp_path, suffix):
    tree = write_tree(tmp_path / "tree")
    kind = "PPM" if suffix == "pnm" else "JPEG"
    PICTURE.save(tree / f"train/cat/x.{suffix}", kind)
    assert len(data.load(tree).train) == 7


def test_labels_may_be_any_integers():
    items = [(PICTURE, y) for y in (0, np.int64(1), torch.tensor(1), True)]
    assert data.wrap(items, items, holdout=0).train.labels.tolist() == [0, 1, 1, 1]


def test_a_data_set_is_shown_in_a_line(tmp_path):
    dataset = data.load(write_tree(tmp_path / "tree"))
    text = repr(dataset)
    assert "6 training and 6 test images of 8 x 8, 2 classes" in text
    assert repr(dataset.train) == "Images(6 of 8 x 8)"
    assert "tensor" not in text
    assert "\n" not in text


def test_some_images_are_from_everywhere_in_the_set():
    dataset = small_dataset(180)
    for count in (0, 1, 7, 60, 10_000):
        some = dataset.spread(count)
        assert len(some) == min(count, len(dataset.fit))
        assert len(some.unique()) == len(some)
        assert set(some.tolist()) <= set(dataset.fit.tolist())
    order = replace(dataset, fit=dataset.train.labels.argsort(stable=True))
    assert set(dataset.train.labels[order.spread(9)].tolist()) == {0, 1, 2}
