"""The command line: verbs, messages, and real images where they are."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from daqakd._ops import STEMS
from daqakd.backends import native
from daqakd.cli.main import main

from ..helpers.small import write_images

ROOT = Path(__file__).parents[2]
DATA = os.environ.get("DAQAKD_DATA")
needs_data = pytest.mark.skipif(not DATA, reason="DAQAKD_DATA names no folder with cifar10/")
# batches of 32: with one step per epoch a teacher may stay at chance, which is an error
FAST: tuple[str, ...] = ("--batch-size", "32", "--teacher-epochs", "1", "--epochs", "1")
FAST += ("--strategies", "minimal", "cutmix")


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "daqakd", *arguments]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"))


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory) -> Path:
    """A whole run on the small tree, in this process."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["run", str(tree), "--out", str(out), *FAST, "--teacher-epochs", "4"]) == 0
    return out


def test_run_leaves_everything(finished, capsys):
    names = {p.name for p in finished.iterdir()}
    assert names >= {
        "teacher.safetensors",
        "student.safetensors",
        "student.packed.safetensors",
        "ranking.json",
        "ranking.csv",
        "metrics.csv",
        "config.toml",
        "env.json",
        "eval.json",
        "checkpoint",
        "report.html",
    }
    shares = json.loads((finished / "eval.json").read_text())
    assert shares["teacher_accuracy"] > 0.5
    assert main(["eval", str(finished)]) == 0
    assert f"{shares['student_accuracy']:.2%}" in capsys.readouterr().out


def test_the_packed_student_has_the_same_accuracy(finished, tree, capsys):
    assert main(["eval", str(finished), "--packed"]) == 0
    noted = json.loads((finished / "eval.json").read_text())
    assert noted["packed_accuracy"] == noted["student_accuracy"]
    assert noted["packed_bytes"] < noted["student_bytes"] / 6
    assert main(["eval", str(tree), "--teacher", str(finished), "--packed"]) == 2
    assert "packed: is for a run's student" in capsys.readouterr().err


def test_a_lost_packed_student_is_written_again(finished, tree):
    path = finished / "student.packed.safetensors"
    content = path.read_bytes()
    path.unlink()
    assert main(["run", str(tree), "--out", str(finished), *FAST, "--teacher-epochs", "4"]) == 0
    assert path.read_bytes() == content


def test_a_finished_run_is_not_redone(finished, tree):
    before = {p.name: p.stat().st_mtime_ns for p in finished.iterdir() if p.is_file()}
    assert main(["run", str(tree), "--out", str(finished), *FAST, "--teacher-epochs", "4"]) == 0
    after = {p.name: p.stat().st_mtime_ns for p in finished.iterdir() if p.is_file()}
    assert after["student.safetensors"] == before["student.safetensors"]
    assert after["eval.json"] == before["eval.json"]


def test_rank_train_and_eval_as_verbs(finished, tree, tmp_path, capsys):
    out, teacher = str(tmp_path), str(finished)
    common = [str(tree), "--teacher", teacher, "--out", out]
    assert main(["rank", *common, "--strategies", "minimal", "cutmix"]) == 0
    strategies = ["--strategies", "minimal", "cutmix"]
    assert main(["train", *common, *strategies, "--epochs", "1", "-w", "4", "-a", "4"]) == 0
    assert "the lowest score" in capsys.readouterr().out
    assert main(["eval", out]) == 0
    assert main(["eval", str(tree), "--teacher", teacher]) == 0
    assert "test images" in capsys.readouterr().out


def test_a_prepared_directory_serves_as_data(finished, tree, tmp_path, capsys):
    out = str(tmp_path / "prepared")
    assert main(["data", "prepare", str(tree), "--out", out]) == 0
    assert "240 training and 60 test images of 16 x 16, 3 classes" in capsys.readouterr().out
    shares = []
    for place in (str(tree), out):
        assert main(["eval", place, "--teacher", str(finished)]) == 0
        shares.append(capsys.readouterr().out)
    assert shares[0] == shares[1]
    options = ["--teacher", str(finished), "--strategies", "minimal", "cutmix"]
    rankings = [tmp_path / name for name in ("folder", "mapped")]
    for place, run_dir in zip((str(tree), out), rankings, strict=True):
        assert main(["rank", place, *options, "--out", str(run_dir)]) == 0
    scores = [json.loads((r / "ranking.json").read_text())["strategies"] for r in rankings]
    for one, other in zip(*scores, strict=True):
        assert {**one, "seconds": 0} == {**other, "seconds": 0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data", "prepare", "nowhere"], "nowhere: no such folder"),
        (["rank", "nowhere", "--teacher", "t.pth"], "t.pth: no such teacher"),
        (["run", "nowhere"], "nowhere: no such folder"),
        (["run", "digits", "--strategy", "trivalaugment"], "Did you mean 'trivialaugment'"),
        (["run", "digits", "--model", "resnet21"], "unknown model 'resnet21'.*Did you mean"),
        (["run", "digits", "-w", "9"], "weight_bits.*1 to 8"),
        (["run", "digits", "--method", "lsqq"], "Did you mean 'lsq'"),
        (["eval", "nowhere"], "config.toml: cannot be read"),
    ],
    ids=lambda v: v[0] if isinstance(v, list) else "",
)
def test_wrong_input_is_one_paragraph(arguments, message, tmp_path, capsys):
    if arguments[0] != "eval":
        arguments = [*arguments, "--out", str(tmp_path)]
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("daqakd: error:")
    assert error.count("\n") == 1
    assert re.search(message, error), error


def test_unknown_options_suggest_the_right_one():
    done = run("run", "digits", "--epoch", "3")
    assert done.returncode != 0
    assert "--epochs" in done.stdout + done.stderr


def test_help_and_doctor():
    assert "rank" in run("--help").stdout
    doctor = run("doctor")
    assert doctor.returncode == 0
    assert "torch" in doctor.stdout
    assert "lsq" in doctor.stdout
    if native.FAILURES["cpu"] is None:
        on_cpu = doctor.stdout.split("ops on cuda")[0]
        assert len(re.findall(r"^  \w+( \(\w+\))? +native", on_cpu, re.M)) == len(STEMS)


@needs_data
def test_the_given_teacher_on_real_images(tmp_path, capsys):
    """A ResNet-20 teacher and real CIFAR-10 images: accuracy, and trivialaugment beats minimal."""
    folder = Path(DATA)
    teacher = ["--teacher", str(folder / "teachers/cifar10_resnet20.safetensors")]
    data = str(folder / "cifar10")
    assert main(["eval", data, *teacher]) == 0
    share = float(capsys.readouterr().out.split(": ")[1].split("%")[0])
    assert 88 < share < 95
    names = ["--strategies", "minimal", "trivialaugment"]
    assert main(["rank", data, *teacher, "--out", str(tmp_path), *names]) == 0
    ranking = json.loads((tmp_path / "ranking.json").read_text())
    assert ranking["best"] == "trivialaugment"
    assert ranking["tied"] == []


def test_alone_it_shows_a_tour_that_any_terminal_holds():
    shown = run()
    assert shown.returncode == 0
    assert "daqakd run digits" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 60
