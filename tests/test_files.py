"""Files: replaced as a whole, under names of their own, and every flipped bit is noticed."""

import errno
import json
import os

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from daqakd import InputError
from daqakd._errors import naming
from daqakd._files import (
    read_json,
    read_tensors,
    remove_temporaries,
    write_bytes,
    write_json,
    write_tensors,
)
from daqakd.data import prepare
from daqakd.train.metrics import read_metrics, to_csv
from daqakd.train.options_file import keep_options, read_options, to_toml
from daqakd.train.store import read_model_file

RECORD = {"best": "minimal", "seconds": 1.5, "rows": [{"a": None}, {"a": "é"}]}
OPTIONS = {"data": "digits", "lr": 0.1, "strategies": ("minimal", "cutmix"), "size": None}
ROW = dict.fromkeys(("epoch", "loss", "ce", "kl", "accuracy", "heldout_accuracy", "lr"), 0.25)
ROWS = [{**ROW, "epoch": n, "heldout_accuracy": None} for n in (1, 2)]
WIDER = [{**row, "clipped": 0.5} for row in ROWS]


def tensors():
    return {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3, dtype=torch.int64)}


KINDS = {
    "json": (lambda p: write_json(p, RECORD), read_json),
    "toml": (lambda p: keep_options(p, "rank", OPTIONS), read_options),
    "safetensors": (lambda p: write_tensors(p, tensors(), {"classes": "[]"}), read_tensors),
    "csv": (lambda p: write_bytes(p, to_csv(ROWS).encode()), read_metrics),
    "csv of parts": (lambda p: write_bytes(p, to_csv(WIDER).encode()), read_metrics),
}
each_kind = pytest.mark.parametrize("kind", KINDS)


def refused(path, read) -> bool:
    """Whether reading is refused in one sentence that says which file to delete."""
    try:
        read(path)
    except InputError as error:
        text = str(error)
        return str(path) in text and "delete it" in text and "\n" not in text
    return False


@each_kind
def test_every_flipped_bit_is_noticed(kind, tmp_path):
    write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    content = path.read_bytes()
    for place in range(len(content)):
        for bit in (0, 3, 5, 7):
            spoilt = bytearray(content)
            spoilt[place] ^= 1 << bit
            path.write_bytes(spoilt)
            assert refused(path, read), (place, bit, bytes(spoilt))


@each_kind
def test_every_cut_is_noticed(kind, tmp_path):
    write, read = KINDS[kind]
    path = tmp_path / "file"
    write(path)
    content = path.read_bytes()
    for end in range(len(content)):
        path.write_bytes(content[:end])
        # a hash per row cannot tell that whole rows are missing
        whole_rows = (
            kind.startswith("csv") and content[:end].count(b"\r\n") > 1 and content[end - 1] == 10
        )
        assert refused(path, read) or whole_rows, end
    path.write_bytes(content)
    read(path)


def test_what_is_written_comes_back_without_its_hash(tmp_path):
    write_json(tmp_path / "a", RECORD)
    assert read_json(tmp_path / "a") == RECORD
    assert (tmp_path / "a").read_text().startswith('{\n  "content_hash": ')
    write_tensors(tmp_path / "b", tensors(), {"model": "resnet20"})
    found, facts = read_tensors(tmp_path / "b")
    assert facts == {"model": "resnet20"}
    assert all(torch.equal(found[k], v) for k, v in tensors().items())
    write_bytes(tmp_path / "c", to_csv(ROWS).encode())
    assert [row["heldout_accuracy"] for row in read_metrics(tmp_path / "c")] == ["", ""]


def test_files_of_older_versions_and_of_others_have_no_hash(tmp_path):
    (tmp_path / "a").write_text(json.dumps(RECORD))
    assert read_json(tmp_path / "a") == RECORD
    save_file(tensors(), tmp_path / "b", {"format": "pt"})
    assert read_tensors(tmp_path / "b")[1] == {"format": "pt"}
    (tmp_path / "c").write_text(to_toml({"rank": OPTIONS}))
    assert read_options(tmp_path / "c")["rank"]["strategies"] == ["minimal", "cutmix"]
    old = "epoch,loss,ce,kl,accuracy,heldout_accuracy,lr\n1,2.0,1.0,0.5,0.4,0.5,0.001\n"
    (tmp_path / "d").write_text(old)
    assert read_metrics(tmp_path / "d")[0]["loss"] == "2.0"


def test_tensors_that_share_memory_are_written_one_by_one(tmp_path):
    weight = torch.randn(4, 4)
    shared = {"a": weight, "tied": weight, "view": weight[:2], "turned": weight.t()}
    write_tensors(tmp_path / "a", shared, {})
    with safe_open(tmp_path / "a", "pt") as file:
        assert all(torch.equal(file.get_tensor(k), v) for k, v in shared.items())


def test_temporary_names_are_unique_and_what_is_left_of_them_goes(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "replace", lambda old, new: seen.append(old))
    for _ in range(2):
        write_bytes(tmp_path / "a.json", b"x")
    assert len({p.name for p in seen}) == 2
    assert all(str(os.getpid()) in p.name for p in seen)
    (tmp_path / ".mine.tmp").touch()
    remove_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [".mine.tmp"]


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(OSError, match="directory") as caught:
        write_bytes(tmp_path / "a", b"x")
    assert caught.value.filename == str(tmp_path / "a")
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("value", ["😀", "a\udcffb", "\x00\x1b", 'quote" \\', float("inf"), 1e-300])
def test_any_option_comes_back_from_toml(tmp_path, value):
    for _ in range(2):
        keep_options(tmp_path / "config.toml", "rank", {"value": value, "many": (value,)})
    assert read_options(tmp_path / "config.toml") == {"rank": {"value": value, "many": [value]}}


FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # as of a write or a read: without a name
BROKEN = OSError(errno.EIO, os.strerror(errno.EIO))


def raising(error):
    def fails(*_, **__):
        raise error

    return fails


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_writing_and_reading_name_the_file(kind, tmp_path, monkeypatch):
    (write, read), path = KINDS[kind], tmp_path / "file"
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", raising(FULL))
        with pytest.raises(OSError, match=r"No space left on device: '.*/file'"):
            write(path)
    write(path)
    monkeypatch.setattr("pathlib.Path.read_bytes", raising(BROKEN))
    monkeypatch.setattr("daqakd._files.safe_open", raising(BROKEN))
    with pytest.raises((OSError, InputError), match=r"Input/output error: '.*/file'"):
        read(path)


def test_the_files_of_others_are_named_too(tmp_path, monkeypatch):
    (tmp_path / "a.pth").touch()
    monkeypatch.setattr(torch, "load", raising(BROKEN))
    with pytest.raises(OSError, match=r"Input/output error: '.*/a.pth'"):
        read_model_file(tmp_path / "a.pth")


def test_pixels_that_do_not_fit_name_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", raising(FULL))
    with pytest.raises(InputError, match=r"out: .* cannot be written .*No space left on device: '"):
        prepare("digits", tmp_path / "out")
    monkeypatch.undo()
    monkeypatch.setattr("daqakd.data.preparing._header", raising(FULL))
    with pytest.raises(InputError, match=r"No space left on device: '.*/out/train.npy'"):
        prepare("digits", tmp_path / "out")


def test_a_name_that_is_there_stays():
    for error, name in ((FULL, "b"), (OSError(errno.EIO, "x", "a"), "a"), (OSError("odd"), "b")):
        with pytest.raises(OSError) as caught, naming("b"):
            raise error
        assert caught.value.filename == name
        assert caught.value.strerror in ("No space left on device", "x", "odd")
