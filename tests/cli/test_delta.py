"""``--delta hessian``: through training, files, a packed student, and on resuming."""

import pytest

from daqakd.cli.main import main
from daqakd.quant.surrogate import updated_quantizers
from daqakd.train import curvature
from daqakd.train.store import load_model, read_model_file

from ..helpers.refusals import fails


@pytest.fixture(scope="module")
def line(tree, finished):
    options = ("--strategy", "minimal", "--epochs", "3", "--batch-size", "16", "--seed", "1")
    return ["train", str(tree), "--teacher", str(finished), *options, "--delta", "hessian"]


def test_a_students_files_hold_its_deltas(line, tree, tmp_path, monkeypatch):
    monkeypatch.setattr(curvature, "ITERATIONS", 3)
    own = ("--method", "ewgs", "--delta-every", "1", "--out", str(tmp_path / "a"))
    assert main([*line, *own]) == 0
    file = read_model_file(tmp_path / "a", "student")
    student = load_model(file, None, 3)
    assert max(q.delta.item() for q in updated_quantizers(student).values()) > 0
    assert main(["eval", str(tmp_path / "a"), "--packed"]) == 0
    assert main([*line, *own, "--dry-run"]) == 0


def test_other_methods_refuse_it(line, tmp_path, capsys):
    fails([*line, "--out", str(tmp_path / "b")], "delta: 'hessian' is for EWGS, and lsq", capsys)
    assert not [*tmp_path.iterdir()]
    bad = ("--method", "ewgs", "--delta-every", "0", "--out", str(tmp_path / "b"))
    fails([*line, *bad], "delta_every: ", capsys)
    assert not [*tmp_path.iterdir()]
