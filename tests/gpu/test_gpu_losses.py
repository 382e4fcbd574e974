"""Losses of features on a GPU: the CPU's values, the same bits twice, no sync, recorded steps."""

from typing import Any

import pytest
import torch
from torch import nn

import daqakd
from daqakd import TrainConfig
from daqakd.augment import Batch
from daqakd.losses import LOSSES, SP, Setup
from daqakd.train import graph

from ..helpers.killed import equal
from ..helpers.small import SmallNet, small_dataset

SIZE, CLASSES = 8, 5
MAPS: dict[str, tuple[int, ...]] = {
    **dict.fromkeys(("at", "fitnet", "ft", "nst", "sp", "vid"), (6, 8, 8)),
    **dict.fromkeys(("cc", "crd", "pkt", "rkd"), (12,)),
    **dict.fromkeys(("dist", "dkd"), (CLASSES,)),
}
CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0, diagnose="off")


def made(name: str, device: str):
    """Return a loss on a device, and what it takes; random numbers are the CPU's."""
    torch.manual_seed(0)
    options: Any = {"negatives": 32, "dimensions": 8} if name == "crd" else {}
    loss = LOSSES[name](**options)
    maps, teacher = (torch.randn(SIZE, *MAPS[name]) for _ in range(2))
    labels, index = torch.arange(40) % CLASSES, torch.arange(SIZE) * 3
    batch = Batch(torch.zeros(SIZE, 3, 1, 1), labels[index], index)
    given = [maps], [teacher], batch, labels, torch.arange(40), CLASSES
    loss.prepare(Setup(nn.Identity(), nn.Identity(), *given, seed=0))
    moved = Batch(batch.images.to(device), batch.labels.to(device), index)
    return loss.to(device).eval(), maps.to(device), teacher.to(device), moved


def value_and_gradient(name: str, device: str):
    loss, maps, teacher, batch = made(name, device)
    leaf = maps.requires_grad_()
    value = loss([leaf], [teacher], batch)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


@pytest.mark.gpu
@pytest.mark.parametrize("name", MAPS)
def test_they_are_the_cpu_s_and_repeat(name):
    found, again = value_and_gradient(name, "cuda"), value_and_gradient(name, "cuda")
    assert torch.equal(found[0], again[0])
    assert torch.equal(found[1], again[1])
    for one, other in zip(found, value_and_gradient(name, "cpu"), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=2e-3, atol=1e-5)  # convolutions in TF32


@pytest.mark.gpu
@pytest.mark.parametrize("name", MAPS)
def test_they_read_nothing_back(name):
    loss, maps, teacher, batch = made(name, "cuda")
    leaf = maps.requires_grad_()
    loss([leaf], [teacher], batch).backward()
    torch.cuda.set_sync_debug_mode("error")
    try:
        loss([leaf], [teacher], batch).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["crd", "sp"])
def test_a_recorded_run_trains_as_it_does_step_by_step(monkeypatch, name):
    def run(recorded: str):
        torch.manual_seed(0)
        teacher = SmallNet().cuda()
        student = daqakd.quantize(teacher, weight_bits=3, act_bits=3)
        config = TrainConfig(**{**vars(CONFIG), "graph": recorded})
        crd = LOSSES["crd"](taps=["fc:input"], negatives=32, dimensions=8)  # type: ignore[call-arg]
        losses = [(crd, 0.8)] if name == "crd" else [(SP(taps=["conv2"]), 1.0)]
        given: Any = {"strategy": "minimal", "config": config, "losses": losses}
        return daqakd.distill(student, teacher, small_dataset(), **given)

    replays, record = [], graph.record

    def counted(work):
        replay = record(work)
        return lambda: (replays.append(1), replay())

    monkeypatch.setattr(graph, "record", counted)
    found, wanted = run("auto"), run("off")
    assert replays
    assert found.history == wanted.history
    assert equal(found.model.state_dict(), wanted.model.state_dict())
