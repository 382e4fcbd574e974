"""Training recorded as a CUDA graph: the same weights, and what cannot be recorded trains, too."""

from typing import Any

import pytest
import torch
from torch import nn

import daqakd
from daqakd import TrainConfig, _console
from daqakd.train import graph

from ..helpers.killed import equal
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0, clip_grad=0.5, diagnose="off")


class Reading(SmallNet):
    """Reads a value back in every pass."""

    def forward(self, x):
        return super().forward(x) * float(x.abs().sum() >= 0)


def run(recorded: str, net=SmallNet, method="lsq"):
    torch.manual_seed(0)
    teacher = nn.Sequential(net(8), nn.Dropout(0.3), nn.Linear(8, 3)).cuda()
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3, method=method)
    config = TrainConfig(**{**vars(CONFIG), "graph": recorded})
    given: dict[str, Any] = {"strategy": "cutmix", "config": config, "quiet": False}
    return daqakd.distill(student, teacher, small_dataset(), **given)


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_a_recorded_run_trains_as_it_does_step_by_step(monkeypatch, method):
    replays, record = [], graph.record

    def counted(work):
        replay = record(work)
        return lambda: (replays.append(1), replay())

    monkeypatch.setattr(graph, "record", counted)
    found, wanted = run("auto", method=method), run("off", method=method)
    assert replays
    assert found.history == wanted.history
    assert equal(found.model.state_dict(), wanted.model.state_dict())


@pytest.mark.gpu
def test_a_model_that_reads_values_back_runs_as_it_is(monkeypatch):
    said = []
    monkeypatch.setattr(_console, "say", said.append)
    found = run("auto", Reading)
    assert sum("graph: no step could be recorded" in line for line in said) == 1
    assert equal(found.model.state_dict(), run("off", Reading).model.state_dict())
