"""Bad input to distill, teach, accuracy and the reader of models: one sentence each."""

# mypy: disable-error-code="var-annotated"

import math
from typing import Any

import pytest
import torch
from torch import nn

import daqakd
from daqakd import RankConfig, TrainConfig
from daqakd.train import accuracy
from daqakd.train.store import read_model_file

from ..helpers.refusals import Row, refused
from ..helpers.small import SmallNet, small_dataset

DATA, NET, HUGE = small_dataset(120), SmallNet(), 10**400
CONFIG = TrainConfig(epochs=1, batch_size=16, workers=0)
NO_MODELS = (None, "resnet20", 3, SmallNet, {})
NO_PATHS = (3, b"x", [], True, "", "\0")
CHOSEN = ([0], torch.tensor([999]), torch.tensor([-1]), torch.tensor([0.5]), torch.tensor(0))


def options(**changes: Any) -> TrainConfig:
    return TrainConfig(**changes)


def distill(**changes):
    some: dict[str, Any] = {"teacher": NET, "dataset": DATA, "strategy": "minimal"}
    some |= {"student": daqakd.quantize(NET, weight_bits=2, act_bits=2), "config": CONFIG}
    return daqakd.distill(**some | changes)


def teach(**changes):
    return daqakd.teach(**{"model": SmallNet(), "dataset": DATA, "config": CONFIG} | changes)


def measure(model=NET, images=DATA.test, inputs=DATA.inputs, *more):
    return accuracy(model, images, inputs, *more)


ROWS: list[Row] = [
    *(("student: expected a torch.nn.Module", lambda m=m: distill(student=m)) for m in NO_MODELS),
    *(("teacher: expected a torch.nn.Module", lambda m=m: distill(teacher=m)) for m in NO_MODELS),
    *(("model: expected a torch.nn.Module", lambda m=m: teach(model=m)) for m in NO_MODELS),
    ("student: no parameter requires a gradient", lambda: distill(student=nn.Identity())),
    ("model: no parameter requires a gradient", lambda: teach(model=nn.Identity())),
    (
        "model: no parameter requires a gradient",
        lambda: teach(model=SmallNet().requires_grad_(False)),
    ),
    ("student: is on the meta device", lambda: distill(student=SmallNet().to("meta"))),
    ("teacher: is on the meta device", lambda: distill(teacher=SmallNet().to("meta"))),
    ("model: is on the meta device", lambda: teach(model=SmallNet().to("meta"))),
    (r"teacher: returned \(2, 5\) .*logits \(2, 3\)", lambda: distill(teacher=SmallNet(5))),
    (r"student: returned \(2, 5\) .*logits \(2, 3\)", lambda: distill(student=SmallNet(5))),
    ("teacher: returned", lambda: distill(teacher=nn.Identity())),
    ("teacher: its forward pass fails on images", lambda: distill(teacher=SmallNet().double())),
    (r"model: returned \(2, 2\)", lambda: teach(model=SmallNet(2))),
    (r"model: returned \(2, 3, 16, 16\)", lambda: teach(model=nn.Conv2d(3, 3, 1))),
    (r"fails on images of \(3, 16, 16\), torch.float32", lambda: teach(model=nn.Linear(9, 3))),
    ("model: its forward pass fails", lambda: teach(model=SmallNet().half())),
    *(
        ("dataset: expected what", lambda d=d: distill(dataset=d))
        for d in (None, "digits", 3, [], DATA.train)
    ),
    *(("dataset: expected what", lambda d=d: teach(dataset=d)) for d in (None, "digits")),
    *(("strategy: expected a name", lambda s=s: distill(strategy=s)) for s in (None, 3, [])),
    *(("unknown strategy", lambda s=s: teach(strategy=s)) for s in ("", "auto", "minmal")),
    *(
        ("config: expected a TrainConfig or None", lambda c=c: distill(config=c))
        for c in ({}, {"epochs": 1}, 0, "x", False, RankConfig(), TrainConfig)
    ),
    *(("config: expected a TrainConfig or None", lambda c=c: teach(config=c)) for c in ([], 3)),
    *(("run_dir: expected a path", lambda p=p: distill(run_dir=p)) for p in NO_PATHS),
    *(("run_dir: expected a path", lambda p=p: teach(run_dir=p)) for p in NO_PATHS[:2]),
    *(("quiet: expected True or False", lambda q=q: teach(quiet=q)) for q in (None, 1, "no")),
    ("batch_size: .*from -2.63", lambda: teach(config=TrainConfig(batch_size=10**30))),
    *(
        (f"{name}: expected an integer from -2.63", options(**{name: 2**64}).check)
        for name in ("epochs", "warmup_steps", "calibration_batches", "seed")
    ),
    *(
        (f"{name}: expected a finite number", options(**{name: value}).check)
        for name in ("lr", "kd_weight", "weight_decay", "checkpoint_seconds")
        for value in (1e300, HUGE, torch.ones(2, 2))
    ),
    *(("temperature: expected from 2", TrainConfig(temperature=t).check) for t in (1e30, 1e-30)),
    ("label_smoothing: expected less than 1", TrainConfig(label_smoothing=1.0).check),
    ("workers: expected at most 1024", TrainConfig(workers=2**40).check),
    *(("model: expected", lambda m=m: measure(m)) for m in NO_MODELS),
    *(("images: expected", lambda i=i: measure(NET, i)) for i in (None, DATA, DATA.test.pixels)),
    *(("inputs: expected", lambda i=i: measure(NET, DATA.test, i)) for i in (None, (0.5,), {})),
    *(("device: ", lambda d=d: measure(NET, DATA.test, DATA.inputs, d)) for d in ("nope", 1.5, [])),
    *(
        ("chosen: expected", lambda c=c: measure(NET, DATA.test, DATA.inputs, "cpu", c))
        for c in CHOSEN
    ),
    *(("teacher: expected a path", lambda p=p: read_model_file(p)) for p in (None, *NO_PATHS)),
    *(
        ("no such teacher; pass", lambda p=p: read_model_file(p))
        for p in ("nope", ".", "/dev/null")
    ),
    ("student.safetensors: no such student", lambda: read_model_file(".", "student")),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".txt", ""])
@pytest.mark.parametrize("content", [b"", b"x", b"hello world", bytes(64)], ids=len)
def test_a_teacher_that_is_none(tmp_path, suffix, content):
    path = tmp_path / f"teacher{suffix}"
    path.write_bytes(content)
    refused(lambda: read_model_file(path), rf"teacher{suffix}: (not a safetensors|cannot be loa)")


@pytest.mark.parametrize("function", [distill, teach])
def test_a_run_directory_that_is_none(tmp_path, function):
    (tmp_path / "file").touch()
    for place in ("file", "file/below"):
        refused(
            lambda p=place: function(run_dir=tmp_path / p), "run_dir: .*is a file or lies below"
        )


def test_every_module_keeps_its_own_mode():
    model = SmallNet().train()
    model.bn1.eval()
    assert math.isfinite(measure(model))
    assert (model.training, model.bn1.training) == (True, False)
