"""Bad input at the command line: one paragraph that helps, exit code not 0, nothing lost."""

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from daqakd.cli.main import main
from daqakd.models import CIFARResNet

from ..helpers.small import SmallNet, write_images

RUN = ("--teacher-epochs", "1", "--epochs", "1", "--strategies", "minimal", "--seed", "1")


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"), train=90, test=30)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory) -> Path:
    """A run whose files must survive whatever is tried on its directory."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["run", str(tree), "--out", str(out), *RUN, "--strategy", "minimal"]) == 0
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def fails(arguments: list[str], message: str, capsys) -> None:
    """Require exit code 2 and one paragraph that matches ``message``."""
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("daqakd: error: ")
    assert error.count("\n") == 1
    assert re.search(message, error), error


def spoilt(tree: Path, tmp_path: Path, spoil) -> str:
    copy = tmp_path / "spoilt"
    shutil.copytree(tree, copy)
    spoil(copy)
    return str(copy)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such folder or data set.*Known data sets"),
        (lambda r: (r / "train/class0/0.png").write_bytes(b"x"), "0.png: not a readable image"),
        (
            lambda r: [p.unlink() for p in (r / "train/class1").iterdir()],
            "class1: class folder wit",
        ),
    ],
    ids=["missing-folder", "unreadable-image", "empty-class"],
)
def test_data(tree, tmp_path, capsys, spoil, message):
    data, out = spoilt(tree, tmp_path, spoil), tmp_path / "out"
    fails(["run", data, "--out", str(out), *RUN], message, capsys)
    assert set(contents(out)) <= {"config.toml", "env.json"}


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (CIFARResNet(3, 7), r"does not fit resnet20 with 3 classes.*\(7, 64\), not \(3, 64\)"),
        (SmallNet(), "does not fit resnet20.*Pass the right --model"),
    ],
    ids=["classes", "architecture"],
)
def test_teacher_that_does_not_fit(tree, tmp_path, capsys, model, message):
    teacher, out = tmp_path / "t.safetensors", tmp_path / "out"
    save_file(model.state_dict(), teacher)
    fails(["rank", str(tree), "--teacher", str(teacher), "--out", str(out)], message, capsys)
    assert set(contents(out)) <= {"config.toml", "env.json"}


def test_teacher_at_chance(tree, tmp_path, capsys):
    teacher, out = tmp_path / "t.safetensors", tmp_path / "out"
    torch.manual_seed(0)
    model = CIFARResNet(3, 3)
    torch.nn.init.zeros_(model.linear.weight)
    save_file(model.state_dict(), teacher)
    arguments = ["rank", str(tree), "--teacher", str(teacher), "--out", str(out)]
    fails(arguments, r"where chance is 33\.3%.*--mean, --std", capsys)
    assert not list(out.glob("ranking*"))


def test_too_few_images_for_the_folds(tree, finished, tmp_path, capsys):
    arguments = ["rank", str(tree), "--teacher", str(finished), "--images", "59"]
    fails([*arguments, "--out", str(tmp_path)], "59 asked for; 10 folds of 3 classes need", capsys)
    assert not list(tmp_path.glob("ranking*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-w", "9"), "weight_bits.*integer from 1 to 8, got 9"),
        (("-a", "0"), "act_bits.*integer from 1 to 8, got 0"),
        (("-w", "1"), "no positive code for LSQ.*use 2 bits or more"),
        (("--strategy", "cutmx"), "unknown strategy 'cutmx'.*Did you mean 'cutmix'"),
        (("--strategies", "cutmx"), "unknown strategy 'cutmx'.*Did you mean 'cutmix'"),
        (("--model", "resnet22"), "unknown model 'resnet22'.*Did you mean"),
        (("--method", "pakt"), "unknown method 'pakt'.*Did you mean 'pact'"),
        (("--lr", "0"), "lr: expected more than 0"),
        (("--input-size", "24"), "input_size: 24 asked for.*add --crop resized, or leave --input-"),
        (
            ("--crop", "pad", "--jitter", *"1111"),
            "jitter: .*only resized crops have it; add --crop",
        ),
        (("--crop-scale", "0.1", "1"), r"crop_scale: \(0.1, 1.0\) asked for.*add --crop resized"),
        (
            ("--crop", "resized", "--input-size", "0"),
            "error: input_size: expected at least 1 pixel",
        ),
        (("--crop", "resized", "--crop-scale", "1", "2"), "error: crop_scale: expected shares"),
        (
            ("--crop", "resized", "--jitter", *"1111"),
            "error: jitter: expected brightness.*0.5, got",
        ),
    ],
    ids=lambda v: "".join(v) if isinstance(v, tuple) else "",
)
def test_options_leave_no_trace(tree, tmp_path, capsys, options, message):
    out = tmp_path / "out"
    fails(["run", str(tree), "--out", str(out), *RUN, *options], message, capsys)
    assert not out.exists()


def test_an_unknown_option_is_refused_with_a_suggestion(tree, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["run", str(tree), "--epoch", "3"])
    assert stop.value.code != 0
    assert "--epochs" in "".join(capsys.readouterr())


def test_another_configuration_keeps_the_run(tree, finished, capsys):
    before = contents(finished)
    arguments = ["run", str(tree), "--out", str(finished), *RUN, "--strategy", "minimal"]
    fails([*arguments, "-w", "3"], r"another configuration: weight_bits \(2 there, 3 here", capsys)
    assert contents(finished) == before


def test_the_input_size_of_a_student_is_its_own(finished, capsys):
    fails(["eval", str(finished), "--input-size", "24"], "input_size: is for --teacher", capsys)
    teacher = ["digits", "--teacher", str(finished), "--input-size", "-1"]
    fails(["eval", *teacher], "error: input_size: expected at least 1 pixel.*got -1", capsys)


def test_a_folder_that_is_no_run(tmp_path, capsys):
    fails(["eval", str(tmp_path)], "config.toml: cannot be read.*is this a run directory", capsys)
    fails(["report", str(tmp_path)], "config.toml: cannot be read", capsys)
    assert not contents(tmp_path)


def test_a_damaged_student(finished, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished, copy)
    (copy / "student.safetensors").write_bytes(b"damaged")
    fails(["eval", str(copy)], "student.safetensors: not a safetensors file", capsys)
