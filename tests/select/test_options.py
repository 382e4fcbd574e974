"""What a trial and the final training are given, and the command line that is advised."""

import shlex
from pathlib import Path

import pytest
import tyro

from daqakd.cli import select, train
from daqakd.cli._command_line import command_line
from daqakd.cli._from_file import options_of
from daqakd.cli._selecting import counts

BASE = {"data": "cifar10", "teacher": "teacher.pth", "total_epochs": 100}


def options(**given):
    return options_of(select.Options, BASE | given, "test").with_others()


def test_a_trial_is_a_whole_short_schedule():
    """Warm-up, milestones and stages are shortened with the epochs, and so is --scale before."""
    own = {"epochs": 80, "scale": 0.5, "warmup_epochs": 8, "schedule": "step"}
    asked = options(**own, milestones=[20, 40], quantize_from=16, lr=0.01)
    trial = asked.of("cutmix", 10)
    assert trial.train_config.epochs == 10
    assert trial.scale == 1
    assert trial.train_config.warmup_epochs == 1
    assert trial.train_config.milestones == (2, 5)
    assert trial.train_config.quantize_from == 2
    assert trial.train_config.lr == 0.01
    assert trial.strategy == "cutmix"
    assert trial.out == Path("runs/select/runs/epochs=10,seed=0,strategy=cutmix")
    final = asked.of("cutmix")
    assert final.train_config.epochs == asked.train_config.epochs == 40
    assert (final.training.epochs, final.scale, final.training.milestones) == (80, 0.5, (20, 40))


def test_trials_serve_other_final_lengths():
    """Only what a schedule says in epochs depends on the final training's."""
    short, long = (options(epochs=n).of("cutmix", 5) for n in (30, 60))
    assert short == long
    every = [options(epochs=n, delta="hessian").of("cutmix", 6) for n in (30, 60)]
    assert [one.train_config.delta_every for one in every] == [2, 1]


@pytest.mark.parametrize("epochs", [1, 3, 7, 29, 60, 137])
def test_every_length_is_met(epochs):
    asked = options(epochs=137, quantize_from=3)
    assert [asked.of("cutmix", n).train_config.epochs for n in (1, epochs)] == [1, epochs]


def test_others_are_ranked_too():
    asked = options(strategies=["cutmix", "augmix"], also=["minimal", "cutmix"])
    assert asked.ranking.names == ["cutmix", "augmix", "minimal"]
    assert options().ranking.names == options(also=[]).ranking.names  # the paper's have both
    assert asked.of("cutmix", 1).ranking.strategies is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (4, 7)),
        ({"shortlist": 2}, (2, 6)),
        ({"shortlist": 1, "also": []}, (1, 2)),
        ({"shortlist": 1, "also": ["minimal", "cutmix", "augmix"]}, (3, 5)),
        ({"shortlist": 9}, (7, 7)),
        ({"shortlist": 3, "also": ["minimal", "minimal"]}, (3, 7)),
        ({"shortlist": 3, "also": [], "pac_limit": 0.1}, (1, 6)),
    ],
)
def test_how_many_may_be_tried(given, expected):
    assert counts(options(**given)) == expected


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"data": "a folder/it's", "out": "x", "device": "cpu"},
        {"weight_bits": 4, "act_bits": "None", "nesterov": False, "kd_only": True},
        {"mean": [0.1, 0.2, 0.3], "exclude": ["fc", "conv*"], "bits_schedule": [4, 2]},
        {"epochs": 7, "lr": 1e-5, "seed": 3, "holdout": 0.25, "model": "vgg8", "scale": 0.5},
    ],
)
def test_the_advised_line_is_the_training(given):
    """Read back, it has the same options, but for those that are not advised."""
    wanted = options(**given).of("trivialaugment+cutmix")
    words = shlex.split(command_line("train", wanted))
    assert words[:3] == ["daqakd", "train", wanted.data]
    found = tyro.cli(train.Options, args=words[2:])
    assert found.train_config == wanted.train_config
    assert found.quantize_options == wanted.quantize_options
    for name in ("data", "teacher", "seed", "strategy", "holdout", "scale", "input", "model"):
        assert getattr(found, name) == getattr(wanted, name), name
    assert (found.out, found.device) == (train.Options(data="", teacher=Path()).out, "auto")
