"""Training by torch.compile: the same run up to rounding, resumed to the same bits."""

from dataclasses import replace

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig, _ranks

from ..helpers.killed import killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0, prefetch="off")
COMPILED = replace(CONFIG, compile=True)


def run(config, run_dir=None):
    torch.manual_seed(0)
    teacher = SmallNet()
    student = daqakd.quantize(teacher, weight_bits=8, act_bits=8)
    options = {"strategy": "cutmix", "config": config, "run_dir": run_dir}
    return daqakd.distill(student, teacher, small_dataset(), **options)


@pytest.fixture
def by(monkeypatch):
    """Compile by another backend than Inductor, which takes minutes; return what was compiled."""
    compiled, compiler = [], torch.compile

    def choose(backend):
        def chosen(model, **options):
            compiled.append(model)
            return compiler(model, backend=backend, **options)

        monkeypatch.setattr(torch, "compile", chosen)
        torch._dynamo.reset()
        return compiled

    yield choose
    torch._dynamo.reset()


def test_both_models_are_compiled_and_train_as_they_do(by):
    compiled = by("aot_eager")
    found = run(COMPILED)
    assert [model.training for model in compiled] == [False, False]  # both are done with
    plain = run(CONFIG)
    assert len(compiled) == 2
    for row, wanted in zip(found.history, plain.history, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-3)
    assert found.model.state_dict().keys() == plain.model.state_dict().keys()


def test_a_killed_run_ends_in_the_same_bits(by, tmp_path):
    by("aot_eager")
    whole = run(COMPILED, tmp_path / "whole")
    with killed_at(2, "_epoch"):
        run(COMPILED, tmp_path / "killed")
    found = run(COMPILED, tmp_path / "killed")
    assert found.history == whole.history
    for name, value in whole.model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name


def test_a_compiler_that_stops_is_told_in_a_sentence(by):
    def broken(graph, inputs):
        raise RuntimeError("no compiler\nfor this")

    by(broken)
    with pytest.raises(InputError, match=r"^compile: torch.compile stopped with .*no compiler"):
        run(COMPILED)


def test_several_ranks_are_refused(monkeypatch):
    monkeypatch.setattr(_ranks, "count", lambda: 2)
    with pytest.raises(InputError, match=r"^compile: expected one process, got 2 ranks"):
        run(COMPILED)


@pytest.mark.slow
def test_inductor_trains_as_eager_does():
    torch._dynamo.reset()
    found, plain = run(COMPILED), run(CONFIG)
    for row, wanted in zip(found.history, plain.history, strict=True):
        assert row["loss"] == pytest.approx(wanted["loss"], rel=1e-2)
