"""Learning rates by step, against PyTorch's own schedulers."""

import warnings

import pytest
import torch
from torch.optim import lr_scheduler

from daqakd import InputError, TrainConfig
from daqakd.train.schedule import factors

STEPS, EPOCHS = 5, 8


def by(make, often: int) -> torch.Tensor:
    """Return the factors that a scheduler of PyTorch gives when it moves every ``often`` steps."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    scheduler, found = make(optimizer), []
    for step in range(STEPS * EPOCHS):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if (step + 1) % often == 0:
            scheduler.step()
    return torch.tensor(found, dtype=torch.float64)


def config(**options) -> TrainConfig:
    made = TrainConfig(epochs=EPOCHS, **options)
    made.check()
    return made


def cosine(length: int):
    return lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, length)


CASES = {
    "cosine": ({}, cosine(EPOCHS * STEPS), 1),
    "cosine by epoch": ({"schedule_by": "epoch"}, cosine(EPOCHS), STEPS),
    "milestones": (
        {"schedule": "step", "milestones": (2, 5), "lr_gamma": 0.3},
        lambda optimizer: lr_scheduler.MultiStepLR(optimizer, [2, 5], 0.3),
        STEPS,
    ),
    "constant": (
        {"schedule": "constant"},
        lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0, 0),
        1,
    ),
    "linear warm-up": (
        {"warmup_steps": 7, "warmup_start": 0.1, "schedule": "constant"},
        lambda optimizer: lr_scheduler.LinearLR(optimizer, 0.1, total_iters=7),
        1,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rates_are_those_of_pytorch(name):
    options, make, often = CASES[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = by(make, often)
    torch.testing.assert_close(factors(config(**options), STEPS), wanted, rtol=1e-12, atol=1e-12)


def test_the_cosine_begins_where_the_warm_up_ends():
    table = factors(config(warmup_steps=3, warmup_epochs=1), STEPS)
    assert table[8] == 1.0 == table.max()
    assert (table[:9].diff() > 0).all()
    assert (table[8:].diff() < 0).all()
    by_epoch = factors(config(warmup_epochs=1, schedule_by="epoch"), STEPS)
    assert torch.equal(by_epoch[STEPS : 2 * STEPS], torch.ones(STEPS, dtype=torch.float64))


@pytest.mark.parametrize("milestones", [(), (0, 2), (3, 2), (2, 2)])
def test_milestones_that_cannot_be(milestones):
    with pytest.raises(InputError, match="milestones: "):
        config(schedule="step", milestones=milestones)
