"""Recorded steps: the same bits as steps that run one by one, by a stand-in for CUDA's graphs."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import daqakd
from daqakd import TrainConfig, _console
from daqakd.train import graph
from daqakd.train.graph import WARM, Gradients, can_record

from ..helpers.killed import equal, killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0, accumulate=2, clip_grad=0.5)


def run(config=CONFIG, run_dir=None, strategy="cutmix"):
    torch.manual_seed(0)
    teacher = nn.Sequential(SmallNet(8), nn.Dropout(0.3), nn.Linear(8, 3))
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3)
    given = {"strategy": strategy, "config": config, "run_dir": run_dir, "quiet": False}
    return daqakd.distill(student, teacher, small_dataset(), **given)


@pytest.fixture
def recorded(monkeypatch):
    """Record on the CPU as on a GPU: nothing runs until the replay. Return what was recorded."""
    recordings = []

    def record(work):
        replays = []
        recordings.append(replays)

        def replay():
            replays.append(1)
            work()

        return replay

    monkeypatch.setattr(graph, "record", record)
    monkeypatch.setattr("daqakd.train.loop.can_record", lambda config, device: True)
    return recordings


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(_console, "say", lines.append)
    return lines


def same(a, b) -> bool:
    return a.history == b.history and equal(a.model.state_dict(), b.model.state_dict())


@pytest.mark.parametrize("strategy", ["cutmix", "minimal"])
def test_a_run_has_the_same_bits(recorded, monkeypatch, strategy):
    found = run(strategy=strategy)
    parts = 2 * len(found.history) * (len(small_dataset().fit) // CONFIG.batch_size)
    assert [len(replays) for replays in recorded] == [parts - 4]  # a batch after the warm ones
    monkeypatch.undo()
    assert same(found, run(strategy=strategy))


def test_a_killed_run_ends_in_the_same_bits(recorded, tmp_path):
    whole = run(run_dir=tmp_path / "whole")
    with killed_at(8):
        run(replace(CONFIG, checkpoint_seconds=0.0), tmp_path / "cut")
    assert same(run(run_dir=tmp_path / "cut"), whole)


@pytest.mark.parametrize(
    "options",
    [
        {"quantize_from": 1},
        {"bits_schedule": (8, 3)},
        {"ema": 0.9, "damping": 0.1, "freeze_oscillating": 0.02},
    ],
    ids=lambda options: next(iter(options)),
)
def test_stages_are_recorded_anew_and_parts_see_every_step(recorded, monkeypatch, options):
    config = replace(CONFIG, epochs=3, **options)
    found = run(config)
    assert len(recorded) == (1 if "ema" in options else 3)
    monkeypatch.undo()
    assert same(found, run(config))


def test_what_cannot_be_recorded_runs_as_it_is_and_is_told(recorded, said, monkeypatch):
    def refuse(work):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(graph, "record", refuse)
    found = run()
    told = [line for line in said if "graph" in line]
    assert told == [
        "student: graph: no step could be recorded (operation not permitted when stream is"
        " capturing); they run one by one"
    ]
    monkeypatch.undo()
    assert same(found, run())


def test_gradients_that_come_and_go_are_not_recorded(monkeypatch):
    weights, used, said = [nn.Parameter(torch.ones(2)) for _ in range(2)], [], []

    def record(work):
        weights[1].grad = torch.full((2,), torch.nan)  # memory of the graph, not yet written
        return work

    monkeypatch.setattr(graph, "record", record)

    def work(batch):
        used.append(1)
        sum(weight.sum() for weight in weights[: 1 + (len(used) > WARM)]).backward()

    gradients = Gradients(work, weights, True, said.append)
    batch = daqakd.augment.Batch(torch.zeros(1, 3, 2, 2), torch.zeros(1).long(), torch.zeros(1))
    for number in range(WARM + 2):
        gradients.zero()
        gradients.add(batch)
        assert weights[0].grad.tolist() == [1.0, 1.0]
        assert weights[1].grad is None or weights[1].grad.tolist() == [1.0, 1.0]
        assert (weights[1].grad is not None) == (number >= WARM)
    assert len(said) == 1
    assert "in some steps only" in said[0]


def test_gradients_that_others_dropped_are_the_recorded_ones_again(recorded):
    weight = nn.Parameter(torch.ones(2))
    gradients = Gradients(lambda batch: (3 * weight).sum().backward(), [weight], True, print)
    batch = daqakd.augment.Batch(torch.zeros(1, 3, 2, 2), torch.zeros(1).long(), torch.zeros(1))
    for number in range(WARM + 4):
        gradients.zero()
        gradients.add(batch)
        assert weight.grad.tolist() == [3.0, 3.0]
        if number == WARM:
            recorded_into = weight.grad
        if number > WARM:
            assert weight.grad is recorded_into
            weight.grad = None
    assert len(recorded) == 1


def test_it_is_for_one_process_on_a_gpu_and_asked_for(monkeypatch):
    gpu, on = torch.device("cuda"), TrainConfig(graph="auto")
    assert can_record(on, gpu)
    assert not can_record(on, torch.device("cpu"))
    assert not can_record(TrainConfig(), gpu)
    assert not can_record(replace(on, compile=True), gpu)
    monkeypatch.setattr("daqakd._ranks.count", lambda: 2)
    assert not can_record(on, gpu)
