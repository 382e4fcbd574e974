"""A teacher's recipe: the same options for ``teach`` and, with a prefix, for ``run``."""

from dataclasses import fields

import pytest

import daqakd.cli.run
import daqakd.cli.teach
from daqakd import TrainConfig
from daqakd.cli._teaching import FIELDS, PREFIX, docs_of
from daqakd.cli.main import main
from daqakd.train.options_file import keep_options

from ..helpers.refusals import fails

TINY = {  # method section 5.3: warm-up from 1e-4 to 0.05
    "lr": 0.05,
    "warmup_steps": 2500,
    "warmup_start": 0.002,
    "label_smoothing": 0.1,
    "batch_size": 64,
}
CIFAR = {"schedule_by": "epoch", "nesterov": False, "weight_decay": 1e-4, "batch_size": 256}
BEFORE = {"optimizer": "sgd", "lr": 0.1, "weight_decay": 5e-4}  # what teachers always had
MODEL = ("--model", "tests.helpers.small:small_net")


def words(prefix: str, options: dict[str, object]) -> list[str]:
    found = []
    for name, value in options.items():
        option = (prefix + name).replace("_", "-")
        found += [f"--no-{option}"] if value is False else [f"--{option}", str(value)]
    return found


@pytest.fixture
def parsed(monkeypatch):
    """Return a function that returns the options of a command line."""
    found = []
    for command in (daqakd.cli.run, daqakd.cli.teach):
        monkeypatch.setattr(command, "run", found.append)

    def parse(*line: str):
        assert main([*line]) == 0
        return found.pop()

    return parse


@pytest.mark.parametrize("options", [{}, TINY, CIFAR], ids=["defaults", "tiny", "cifar"])
def test_recipes_of_the_paper(parsed, options):
    wanted = TrainConfig(**{**BEFORE, **options, "seed": 3, "workers": 0})
    shared = ("digits", "--seed", "3", "--workers", "0")
    assert parsed("teach", *shared, *words("", options)).train_config == wanted
    student = ("--lr", "0.5", "--label-smoothing", "0.3", "--warmup-steps", "7")
    line = ("run", *shared, *student, *words(PREFIX, options))
    assert parsed(*line).teacher_config == wanted


def test_a_teacher_has_the_student_s_batch_size_unless_it_has_its_own(parsed):
    assert parsed("run", "digits", "--batch-size", "32").teacher_config.batch_size == 32
    line = ("run", "digits", "--batch-size", "32", "--teacher-batch-size", "8")
    assert parsed(*line).teacher_config.batch_size == 8


def test_every_option_says_what_it_is(capsys):
    docs = docs_of(TrainConfig)
    assert docs.keys() == {f.name for f in fields(TrainConfig)}
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    for name in FIELDS:
        assert f"--{PREFIX}{name}".replace("_", "-") in said
    assert "after which --teacher-schedule step lowers" in said


def test_label_smoothing_and_warm_up_reach_the_teacher(tree, tmp_path):
    weights = []
    for place, more in (("a", ()), ("b", ("--label-smoothing", "0.2")), ("c", ())):
        more = ("--warmup-epochs", "1") if place == "c" else more
        line = ["teach", str(tree), *MODEL, "--epochs", "2", "--batch-size", "16", *more]
        assert main([*line, "--out", str(tmp_path / place)]) == 0
        weights.append((tmp_path / place / "teacher.safetensors").read_bytes())
    assert len(set(weights)) == 3


def test_a_run_begun_before_the_recipe_had_options_continues(tree, tmp_path, capsys):
    line = ["teach", str(tree), *MODEL, "--epochs", "1", "--batch-size", "16"]
    before = {"data": str(tree), "model": MODEL[1], "epochs": 1, "batch_size": 16}
    keep_options(tmp_path / "config.toml", "teach", before)
    assert main([*line, "--out", str(tmp_path)]) == 0
    line += ["--out", str(tmp_path), "--warmup-steps", "3"]
    fails(line, r"another configuration: warmup_steps \(0 there, 3 here\)", capsys)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("teach --label-smoothing 1", "^daqakd: error: label_smoothing: expected less than 1"),
        ("teach --warmup-steps -1", "^daqakd: error: warmup_steps: expected at least 0"),
        ("teach --schedule step", "^daqakd: error: milestones: "),
        ("run --teacher-label-smoothing 1", "error: teacher_label_smoothing: expected less than"),
        ("run --teacher-batch-size 0", "error: teacher_batch_size: expected at least 1, got 0"),
    ],
)
def test_what_cannot_be_meant(tree, tmp_path, capsys, line, message):
    command, *options = line.split()
    fails([command, str(tree), "--out", str(tmp_path / "x"), *options], message, capsys)
    assert not [*tmp_path.iterdir()]
