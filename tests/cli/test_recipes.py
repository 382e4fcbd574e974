"""Recipes: each can be meant, runs shortened, goes on after a kill, and is told with its figure."""

import re
import tomllib

import pytest

from daqakd import TrainConfig, recipes
from daqakd.cli import run as run_command
from daqakd.cli import train as train_command
from daqakd.cli._from_file import options_of
from daqakd.cli._recipe import options_for
from daqakd.cli.main import main
from daqakd.quant.spec import METHODS
from daqakd.train.schedule import scaled

from ..helpers.killed import killed_at
from ..helpers.refusals import fails

NAMES = recipes.names()
BASES = sorted(path.stem for path in recipes.BASES.glob("*.toml"))
SHORT = ("--scale", "0.001", "--strategy", "minimal")
FIGURES = {  # method section 7
    "cifar100-resnet32-w4a4-ewgs": 75.11,
    "cifar100-vgg13-w4a4-ewgs": 77.97,
    "tiny-mobilenetv2-w4a4-pact": 59.48,
    "tiny-mobilenetv2-w3a3-pact": 56.17,
    "tiny-resnet18-w8a8-dorefa": 67.19,
    "tiny-resnet18-w4a4-pact": 67.39,
    "tiny-resnet18-w3a3-pact": 62.31,
    "tiny-resnet18-w3a3-lsq": 66.47,
    "tiny-resnet18-w3a3-lsq-sqakd": 65.21,
    "tiny-resnet18-w4a4-pact-qat": 61.06,
    "tiny-mobilenetv2-w3a3-pact-sqakd": 52.73,
}


def options(name, command="run"):
    kind = {"run": run_command, "train": train_command}[command].Options
    return options_of(kind, options_for(command, name), name)


@pytest.mark.parametrize("name", NAMES)
def test_it_can_be_meant(name):
    found = options(name)
    found.check(None)
    recipe = recipes.read(name)
    assert recipe.source
    assert recipe.unknown
    widths = re.search(r"-w(\d)a(\d)-(\w+)", name)
    bits, method = widths.group(1, 2), widths.group(3)
    quantized = found.quantize_options
    assert (str(quantized["weight_bits"]), str(quantized["act_bits"])) == bits
    assert quantized["method"] == method in METHODS
    assert found.holdout == 0.0
    config = found.train_config
    assert config.kd_only == name.endswith("-sqakd")
    assert config.no_teacher == name.endswith("-qat")
    assert recipe.published == FIGURES.get(name, recipe.published)


def test_the_papers_experiments_are_there():
    assert len(NAMES) == len(set(NAMES)) == 38
    assert set(FIGURES) <= set(NAMES)
    assert {name.split("-w")[0] for name in NAMES} == set(BASES)
    kds = {options(name).training.kd for name in NAMES}
    assert kds == {None, "crd", "nst", "rkd", "sp"}


def test_train_takes_a_teacher_that_there_is():
    found = options("cifar100-vgg13-w2a2-ewgs-crd", "train")
    assert (found.training.epochs, found.training.kd_weight) == (200, 0.0)
    assert found.exclude == ("groups.0.*",)


def line(name, tree, out, *more):
    size = ("--input-size", "32") if name.startswith("tiny") else ()
    return ["run", str(tree), "--recipe", name, "--out", str(out), *SHORT, *size, *more]


def check_run(name, tree, out, capsys):
    """Run a recipe, kill it in the student's training, go on, and read what is told."""
    with killed_at(2):
        main(line(name, tree, out))
    assert main(line(name, tree, out)) == 0
    said = capsys.readouterr().out
    figure = re.escape(recipes.read(name).figure)
    assert re.search(rf"recipe {name}: [\d.]+%, after 1 of \d+ epochs .*%: {figure}", said), said
    page = (out / "report.html").read_text()
    assert name in page
    assert "of the schedule" in page
    written = tomllib.loads((out / "config.toml").read_text())["run"]
    assert (written["recipe"], written["scale"]) == (name, 0.001)


@pytest.mark.parametrize("name", ["cifar10-vgg8-w2a2-ewgs"])
def test_it_runs_and_resumes(name, tree, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    check_run(name, tree, tmp_path / "run", capsys)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_each_runs_and_resumes(name, tree, tmp_path, capsys):
    check_run(name, tree, tmp_path / "run", capsys)


def test_the_command_line_goes_over_it(tree, tmp_path, capsys):
    name = "cifar10-vgg8-w2a2-ewgs"
    more = ("--dry-run", "-w", "3", "--epochs", "500", "--scale", "0.01")
    assert main(line(name, tree, tmp_path, *more)) == 0
    said = capsys.readouterr().out
    assert re.search(r"student: vgg8 W3A2 ewgs, .*, 5 epochs of", said)
    assert re.search(r"teacher: vgg8, .*, 4 epochs of", said)


def test_they_are_listed_with_their_figures(capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    for name in NAMES:
        assert re.search(rf"^{name} +{re.escape(recipes.read(name).figure)}$", said, re.M), name
    assert main(["recipes", "cifar100-vgg13-w2a2-ewgs-crd"]) == 0
    said = capsys.readouterr().out
    assert "--exclude groups.0.*" in said
    assert "--kd crd" in said
    assert "--no-teacher-nesterov" in said
    assert "not known: how many seeds" in said


def test_sentences(tree, tmp_path, capsys):
    begin = ["run", str(tree), "--out", str(tmp_path / "x")]
    wrong = [*begin, "--recipe", "cifar10-vgg8-w2a2-ewg"]
    fails(wrong, "lists. Did you mean 'cifar10-vgg8-w2a2-ewgs'?", capsys)
    for scale in ("0", "1.5", "-1"):
        fails([*begin, "--scale", scale], "scale: expected more than 0 and at most 1", capsys)
    fails([*begin, "--exclude", "nothing*"], "nothing*", capsys)


def test_a_loss_by_class_refuses_mixed_images_before_any_work(tree, tmp_path, capsys):
    begin = ["run", str(tree), "--out", str(tmp_path / "x"), "--kd", "crd"]
    said = "kd: crd is not defined for images mixed from two, as cutmix mixes them; name others"
    fails(begin, said, capsys)
    fails([*begin, "--strategy", "cutmix"], said, capsys)


def test_a_schedule_becomes_shorter_as_a_whole():
    whole = TrainConfig(
        epochs=200, schedule="step", milestones=(100, 150, 151), warmup_steps=2500, delta_every=10
    )
    short = scaled(whole, 0.01)
    assert (short.epochs, short.milestones, short.warmup_steps) == (2, (1, 2), 25)
    assert short.delta_every == 1
    staged = scaled(TrainConfig(epochs=100, quantize_from=50, warmup_epochs=5), 0.1)
    assert (staged.epochs, staged.quantize_from, staged.warmup_epochs) == (10, 5, 0)
    assert scaled(TrainConfig(epochs=100, quantize_from=99), 0.01).quantize_from == 0
    assert scaled(whole, 1) is whole
    for config in (short, staged):
        config.check()
