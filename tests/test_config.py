"""Configurations: every value that cannot be meant is named, wrong types included."""

import math
from dataclasses import fields

import pytest
import torch

from daqakd import InputError, InputSpec, RankConfig, SearchConfig, TrainConfig
from daqakd.augment import PAPER
from daqakd.cli._options import flat
from daqakd.cli.train import Options

from .helpers.refusals import refused

INF, NAN = math.inf, math.nan
WRONG = [
    (TrainConfig, {"epochs": 0}, "epochs: expected at least 1, got 0"),
    (TrainConfig, {"epochs": 1.5}, "epochs: expected an integer, got 1.5"),
    (TrainConfig, {"epochs": True}, "epochs: expected an integer, got True"),
    (TrainConfig, {"batch_size": -1}, "batch_size: expected at least 1"),
    (
        TrainConfig,
        {"optimizer": "lion"},
        "optimizer: expected 'adam' or 'adamw' or 'sgd', got",
    ),
    (TrainConfig, {"optimizer": torch.optim.SGD}, "optimizer: expected 'adam' or 'adamw' or"),
    (TrainConfig, {"lr": 0.0}, "lr: expected more than 0"),
    (TrainConfig, {"lr": NAN}, "lr: expected a finite number, got nan"),
    (TrainConfig, {"lr": "0.1"}, "lr: expected a finite number, got '0.1'"),
    (TrainConfig, {"quantizer_lr": -1e-3}, "quantizer_lr: expected at least 0"),
    (TrainConfig, {"weight_decay": -1.0}, "weight_decay: expected at least 0"),
    (TrainConfig, {"warmup_steps": -1}, "warmup_steps: expected at least 0"),
    (TrainConfig, {"temperature": INF}, "temperature: expected a finite number, got inf"),
    (TrainConfig, {"ce_weight": None}, "ce_weight: expected a finite number, got None"),
    (TrainConfig, {"kd_weight": -2.0}, "kd_weight: expected at least 0"),
    (TrainConfig, {"label_smoothing": 1.5}, "label_smoothing: expected less than 1"),
    (TrainConfig, {"calibration_batches": 0}, "calibration_batches: expected at least 1"),
    (TrainConfig, {"seed": "0"}, "seed: expected an integer, got '0'"),
    (TrainConfig, {"workers": -1}, "workers: expected at least 0"),
    (TrainConfig, {"workers": "all"}, "workers: expected an integer or None, got 'all'"),
    (RankConfig, {"images": 0}, "images: expected at least 1"),
    (RankConfig, {"images": 0.5}, "images: expected an integer or None, got 0.5"),
    (RankConfig, {"passes": 0}, "passes: expected at least 1"),
    (RankConfig, {"cmi_weight": NAN}, "cmi_weight: expected a finite number"),
    (RankConfig, {"pac_limit": -5.0}, "pac_limit: expected at least 0"),
    (RankConfig, {"pac_limit": "1"}, "pac_limit: expected a finite number or None"),
    (RankConfig, {"budget": -1.0}, "budget: expected more than 0 seconds"),
    (RankConfig, {"until_sure": 1}, "until_sure: expected True or False, got 1"),
    (RankConfig, {"teacher_dtype": "float16"}, "teacher_dtype: expected 'float32' or 'bfloat16'"),
    (RankConfig, {"strategies": "minimal"}, "strategies: expected a tuple of any number"),
    (RankConfig, {"strategies": ()}, "strategies: need at least one"),
    (RankConfig, {"strategies": (3,)}, "strategies: expected a tuple of any number, each a string"),
    (RankConfig, {"strategies": ("minmal",)}, "Did you mean 'minimal'"),
    (SearchConfig, {"compositions": 1}, "compositions: expected 2 to 10000, got 1"),
    (SearchConfig, {"compositions": 4.0}, "compositions: expected an integer, got 4.0"),
]


@pytest.mark.parametrize(("kind", "change", "message"), WRONG, ids=lambda v: str(v)[:40])
def test_what_cannot_be_meant_is_named(kind, change, message):
    refused(kind(**change).check, message)


@pytest.mark.parametrize("kind", [TrainConfig, RankConfig, SearchConfig])
def test_defaults_and_every_number_of_another_kind(kind):
    kind().check()
    floats = [f.name for f in fields(kind) if isinstance(f.default, float)]
    ones = dict.fromkeys(floats, 1) | {"label_smoothing": 0, "momentum": 0}
    kind(**{name: ones[name] for name in floats}).check()  # an int serves as a float
    for name in floats:
        with pytest.raises(InputError, match=f"{name}: expected a finite number, got None"):
            kind(**{name: None}).check()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": (0.5, 0.5)}, "mean: expected three numbers"),
        ({"mean": "abc"}, "mean: expected three numbers"),
        ({"std": (0.2, 0.0, 0.2)}, "std: expected three positive numbers"),
        ({"std": (0.2, NAN, 0.2)}, "std: expected three positive numbers"),
        ({"mean": (0.5, INF, 0.5)}, "mean: expected three numbers"),
        ({"mean": None}, "mean: expected three numbers"),
        ({"pipeline": 224}, "pipeline: expected a daqakd.ResizedCrop or None, got int"),
        ({"semantics": "pill"}, "Did you mean 'pil'"),
        ({"clean": "whoel"}, "unknown clean 'whoel'. Did you mean 'whole'"),
        ({"clean": 256}, "unknown clean '256'. Known: middle, whole"),
    ],
)
def test_input_specs(change, message):
    refused(lambda: InputSpec(**change), message)


def test_input_specs_read_the_same():
    assert InputSpec([1, 0, 0], torch.ones(3)) == InputSpec((1.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    changed = InputSpec().with_changes(mean=None, std=(1, 1, 1), semantics="torchvision")
    assert changed == InputSpec(std=(1.0, 1.0, 1.0), semantics="torchvision")


def test_names_are_the_paper_s_unless_given():
    assert RankConfig().names == list(PAPER)
    assert RankConfig(strategies=["minimal", "cutmix", "minimal"]).names == ["minimal", "cutmix"]
    assert RankConfig(teacher_dtype=torch.bfloat16).dtype == torch.bfloat16


def test_a_command_s_own_options_win_over_a_group_s():
    values = flat(vars(Options(data="x", teacher="t", seed=7, workers=3)))
    assert (values["seed"], values["workers"], values["lr"]) == (7, 3, TrainConfig.lr)
