"""Nothing that a file names is imported: a function's name counts where --model repeats it."""

import re
import sys

import pytest

from daqakd.cli.main import main
from daqakd.report import report
from daqakd.train.store import load_model, read_model_file

from ..helpers.small import write_images

MODULE = """
from pathlib import Path
Path({mark!r}).touch()
from tests.helpers.small import small_net as build
"""
NAME = "module_of_a_stranger:build"
SHORT = ("--batch-size", "16", "--strategy", "minimal", "--epochs", "1")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    """A data set, a run whose files name a function, and the mark that importing it leaves."""
    folder = tmp_path_factory.mktemp("stranger")
    mark, out = folder / "imported", folder / "run"
    (folder / "module_of_a_stranger.py").write_text(MODULE.format(mark=str(mark)))
    sys.path.insert(0, str(folder))
    tree = write_images(folder / "tree", train=120, test=30)
    line = ["run", str(tree), "--out", str(out), *SHORT, "--teacher-epochs", "8", "--model", NAME]
    assert main(line) == 0
    yield tree, out, mark
    sys.path.remove(str(folder))


@pytest.fixture
def forgotten(stranger):
    """The same, with the module not yet imported."""
    sys.modules.pop("module_of_a_stranger", None)
    stranger[2].unlink(missing_ok=True)
    return stranger


def lines(tree, out, place) -> dict[str, list[str]]:
    given = [str(tree), "--teacher", str(out), "--out", str(place)]
    return {
        "eval": ["eval", str(out)],
        "packed": ["eval", str(out), "--packed"],
        "eval-teacher": ["eval", str(tree), "--teacher", str(out)],
        "rank": ["rank", *given, "--strategies", "minimal"],
        "search": ["search", *given, "--compositions", "2"],
        "train": ["train", *given, *SHORT],
        "run": ["run", *given, *SHORT],
        "report": ["report", str(out), "--out", str(place / "page.html")],
    }


@pytest.mark.parametrize("command", lines("", "", __import__("pathlib").Path()))
def test_a_function_in_a_file_is_not_imported(command, forgotten, tmp_path, capsys):
    tree, out, mark = forgotten
    line = lines(tree, out, tmp_path / "out")[command]
    capsys.readouterr()
    assert main(line) == 2
    error = capsys.readouterr().err
    assert re.match(rf"daqakd: error: .*safetensors: its model is the function {NAME}, ", error)
    assert f"pass --model {NAME}" in error
    assert error.count("\n") == 1
    assert not mark.exists()
    assert not (tmp_path / "out").exists()
    assert main([*line, "--model", NAME]) == 0
    assert mark.exists()


def test_python_calls_import_nothing_either(forgotten):
    _, out, mark = forgotten
    for kind in ("teacher", "student", "student.packed"):
        with pytest.raises(ValueError, match="which is code"):
            load_model(read_model_file(out, kind), None, 3)
    with pytest.raises(ValueError, match="which is code"):
        report([out])
    assert not mark.exists()
