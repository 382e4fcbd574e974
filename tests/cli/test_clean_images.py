"""``--clean``: tested at the middle of an image or at the whole of it, as files and options say."""

import re

import pytest

from daqakd.cli.main import main
from daqakd.train.store import read_model_file

from ..helpers.refusals import fails

CROPS = ("--crop", "resized", "--input-size", "14")
SHORT = ("--epochs", "6", "--batch-size", "16", "--model", "tests.helpers.small:small_net")


@pytest.fixture(scope="module")
def teachers(tree, tmp_path_factory):
    """Two teachers: one tested at the middle of its images, one at the whole of them."""
    made = []
    for more in ((), ("--clean", "whole")):
        made.append(tmp_path_factory.mktemp("teacher"))
        assert main(["teach", str(tree), "--out", str(made[-1]), *CROPS, *SHORT, *more]) == 0
    return made


def test_the_file_carries_it_where_it_is_another(teachers):
    middle, whole = (read_model_file(out) for out in teachers)
    assert "clean" not in middle.facts
    assert "clean" not in middle.inputs
    assert whole.inputs["clean"] == "whole"
    weights = [(out / "teacher.safetensors").read_bytes() for out in teachers]
    assert len(weights[0]) < len(weights[1]), "only what it says of itself differs"


def test_a_teacher_s_file_is_followed_and_options_go_over_it(tree, teachers, capsys):
    middle, whole = (["rank", str(tree), "--teacher", str(out), *SHORT[4:]] for out in teachers)
    for line, sides in (
        ([*middle], "14 x 14 for the network\n"),
        ([*middle, "--clean", "whole"], "14 x 14 for the network, 16 x 16 when it is tested"),
        ([*whole], "14 x 14 for the network, 16 x 16 when it is tested"),
        ([*whole, "--clean", "middle"], "14 x 14 for the network\n"),
        ([*whole, "--crop", "pad"], "16 x 16 for the network\n"),
    ):
        assert main([*line, "--dry-run", "--strategies", "minimal", "cutmix"]) == 0
        assert sides in capsys.readouterr().out, line


def test_eval_sees_what_is_asked_for(tree, teachers, capsys, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "daqakd.cli.eval.accuracy", lambda model, images, inputs, device: seen.append(inputs) or 0.5
    )
    line = ["eval", str(tree), *SHORT[4:], "--teacher"]
    for options in ([teachers[0]], [teachers[1]], [teachers[0], "--clean", "whole"]):
        assert main([*line, *map(str, options)]) == 0
    assert [inputs.clean for inputs in seen] == ["middle", "whole", "whole"]
    assert re.search(r"50.00% of 30 test images", capsys.readouterr().out)


def test_what_cannot_be_meant(tree, finished, tmp_path, capsys):
    line = ["run", str(tree), "--out", str(tmp_path / "x"), "--clean", "whole"]
    fails(line, "clean: whole asked for, but only resized crops have it; add --crop res", capsys)
    line = ["eval", str(tree), "--teacher", str(finished), "--clean", "whole"]
    fails(line, "clean: whole asked for, but .* not resized; add --input-size", capsys)
    fails(["eval", str(finished), "--clean", "whole"], "clean: is for --teacher", capsys)
    assert not [*tmp_path.iterdir()]


def test_a_run_begun_with_another_does_not_continue(tree, teachers, capsys):
    line = ["teach", str(tree), "--out", str(teachers[0]), *CROPS, *SHORT]
    assert main(line) == 0
    fails([*line, "--clean", "whole"], r"clean \(None there, whole here\)", capsys)
