"""A student of another architecture, and what it starts from: its teacher, a seed, or a file."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import daqakd
from daqakd import data
from daqakd.augment.draws import generator_seed
from daqakd.cli._start import own_start
from daqakd.cli.main import main
from daqakd.cli.train import Options
from daqakd.models import build
from daqakd.train.store import load_model, read_model_file

from ..helpers.killed import equal, killed_at
from ..helpers.refusals import fails

NET = "tests.helpers.small:small_net"
SHORT = ("--strategy", "minimal", "--epochs", "2", "--batch-size", "16")


@pytest.fixture(scope="module")
def teacher(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    line = ["teach", str(tree), "--out", str(out), "--epochs", "4", "--batch-size", "16"]
    assert main([*line, "--model", NET]) == 0
    return out


@pytest.fixture
def line(tree, teacher):
    return ["train", str(tree), "--teacher", str(teacher), "--model", NET, *SHORT]


def start(tree, teacher, **options: Any) -> dict[str, torch.Tensor] | None:
    """Return the weights that a student starts from other than its teacher's."""
    made = Options(data=str(tree), teacher=teacher, model=NET, device="cpu", **options)
    model = own_start(made, read_model_file(teacher), data.load(tree))
    return None if model is None else dict(model.state_dict())


def seeded(name: str, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(generator_seed(seed))
    return dict(build(name, 3).state_dict())


def test_first_weights(tree, teacher):
    assert start(tree, teacher) is start(tree, teacher, init="teacher") is None
    assert start(tree, teacher, student_model=NET) is None
    for options in ({"student_model": "resnet20"}, {"init": "random"}):
        name, found = options.get("student_model", NET), start(tree, teacher, seed=5, **options)
        assert found is not None
        assert equal(found, seeded(name, 5))
        assert not equal(found, seeded(name, 6))
    found = start(tree, teacher, init=str(teacher))
    assert found is not None
    assert equal(found, dict(load_model(read_model_file(teacher), NET, 3).state_dict()))


def test_a_student_of_another_model_in_every_command(line, tree, tmp_path, capsys):
    own = [*line, "--student-model", "resnet20", "--out", str(tmp_path)]
    assert main([*own, "--dry-run"]) == 0
    assert "student: resnet20 W2A2 lsq, 269,267 parameters" in capsys.readouterr().out
    assert main(own) == 0
    file = read_model_file(tmp_path, "student")
    assert file.model == "resnet20"
    assert daqakd.summary(load_model(file, None, 3)).layers[0].name == "conv1"
    assert main(["eval", str(tmp_path)]) == 0
    assert main(["eval", str(tmp_path), "--packed"]) == 0
    told = json.loads((tmp_path / "eval.json").read_text())
    assert told["packed_accuracy"] == told["student_accuracy"]
    assert main(["report", str(tmp_path)]) == 0
    assert main(own) == 0  # goes on with the same options, and has nothing left to do
    fails([*line, "--out", str(tmp_path)], r"student_model \(resnet20 there, None here\)", capsys)
    other = [*own[:-4], "--student-model", "vgg8", "--out", str(tmp_path)]
    fails(other, r"student_model \(resnet20 there, vgg8 here\)", capsys)


def test_a_run_evaluates_teacher_and_student_by_their_own_names(tree, teacher, tmp_path):
    line = ["run", str(tree), "--teacher", str(teacher), "--model", NET, *SHORT]
    assert main([*line, "--student-model", "resnet20", "--out", str(tmp_path)]) == 0
    told = json.loads((tmp_path / "eval.json").read_text())
    assert {"teacher_accuracy", "student_accuracy"} <= told.keys()
    assert (tmp_path / "report.html").exists()


def test_a_killed_student_with_random_weights_ends_in_the_same_bits(line, tmp_path):
    own = [*line, "--init", "random", "--checkpoint-seconds", "0", "--out"]
    assert main([*own, str(tmp_path / "a")]) == 0
    with killed_at(8):
        main([*own, str(tmp_path / "b")])
    assert main([*own, str(tmp_path / "b")]) == 0
    assert main([*line, "--out", str(tmp_path / "c")]) == 0
    bits = [(tmp_path / n / "student.safetensors").read_bytes() for n in "abc"]
    assert bits[0] == bits[1] != bits[2]


def test_a_checkpoint_of_another_model_is_not_taken(line, tmp_path, capsys):
    own = [*line, "--checkpoint-seconds", "0", "--out", str(tmp_path)]
    with killed_at(4):
        main(own)
    (tmp_path / "config.toml").unlink()
    fails([*own, "--student-model", "resnet20"], "tensors do not fit this model", capsys)


def rows(teacher: Path, student: Path) -> list[tuple[str, str]]:
    return [
        ("--student-model resnet21", "unknown model 'resnet21'.*Did you mean"),
        (
            "--student-model resnet20 --init teacher",
            "init: the teacher's weights are of .*small_net, and the student is resnet20; use --i",
        ),
        ("--init randm", "init: 'randm' is no file. Did you mean 'random'.*Use teacher, random, o"),
        (f"--init {student}/student.safetensors", "init: .* is quantized already; use the full-p"),
        (f"--init {student}", "teacher.safetensors: no such teacher"),
        (f"--student-model vgg8 --init {teacher}", "teacher.safetensors: does not fit vgg8"),
        (
            "--student-model tests.helpers.builders:more_classes",
            r"student_model \(.*\): returned \(2, 5\).*expected logits \(2, 3\)",
        ),
    ]


def test_what_cannot_be_meant(line, teacher, tmp_path, capsys):
    student = tmp_path / "student"
    assert main([*line, "--out", str(student)]) == 0
    for options, message in rows(teacher, student):
        fails([*line, "--out", str(tmp_path / "x"), *options.split()], message, capsys)
        assert not (tmp_path / "x").exists()
    named = tmp_path / "named"
    made = ["teach", line[1], "--out", str(named), "--epochs", "1", "--batch-size", "16"]
    assert main([*made, "--model", "resnet20"]) == 0
    other = [*line, "--out", str(tmp_path / "x"), "--init", str(named)]
    fails(other, "is of resnet20, and the student is .*; add --student-model resnet20", capsys)
