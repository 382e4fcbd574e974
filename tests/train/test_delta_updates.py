"""EWGS's delta in a run: when it is updated, and that a killed run goes on to the same bits."""

from dataclasses import replace

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.quant.surrogate import updated_quantizers
from daqakd.train import Result, curvature, delta_updates
from daqakd.train.preview import count_updates, training_seconds

from ..helpers.killed import equal, killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=4, batch_size=16, lr=0.01, workers=0, delta_every=2, delta_batches=2)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(curvature, "ITERATIONS", 3)


def run(config=CONFIG, run_dir=None, delta="hessian", **options):
    torch.manual_seed(0)
    teacher = SmallNet()
    given = {"weight_bits": 3, "act_bits": 3, "method": "ewgs", "delta": delta} | options
    student = daqakd.quantize(teacher, **given)
    own = {"strategy": "cutmix", "config": config, "run_dir": run_dir}
    return daqakd.distill(student, teacher, small_dataset(), **own)


def updates(monkeypatch):
    seen, original = [], delta_updates.update_delta

    def noted(*args, **kwargs):
        seen.append(kwargs["epoch"])
        return original(*args, **kwargs)

    monkeypatch.setattr(delta_updates, "update_delta", noted)
    return seen


def test_it_is_updated_every_so_many_epochs_and_not_at_first(monkeypatch):
    seen = updates(monkeypatch)
    result = run()
    assert seen == [2]
    found = [q.delta.item() for q in updated_quantizers(result.model).values()]
    assert max(found) > 0
    run(replace(CONFIG, epochs=3, delta_every=1))
    assert seen == [2, 1, 2]
    run(replace(CONFIG, delta_every=10))
    run(delta=0.1)
    assert seen == [2, 1, 2]


@pytest.mark.parametrize(
    "options", [{}, {"delta_every": 1}, {"delta_every": 10}, {"delta_every": 1, "quantize_from": 2}]
)
@pytest.mark.parametrize("delta_batches", [2, 100])
def test_a_dry_run_counts_as_many_batches(options, delta_batches, monkeypatch):
    seen, original = [], delta_updates.update_delta

    def counted(student, loss, batches, **kwargs):
        return original(student, loss, (seen.append(b) or b for b in batches), **kwargs)

    monkeypatch.setattr(delta_updates, "update_delta", counted)
    config = replace(CONFIG, delta_batches=delta_batches, **options)
    model = run(config).model
    steps = len(small_dataset().fit) // config.batch_size
    assert len(seen) == count_updates(model, config, steps)
    assert count_updates(SmallNet(), config, steps) == 0


def test_a_dry_run_tells_their_time():
    student = run(replace(CONFIG, epochs=1)).model

    def train(dataset, few):
        updates = sum(epoch % few.delta_every == 0 for epoch in range(1, few.epochs))
        steps = few.epochs * (len(dataset.fit) // few.batch_size)
        return Result(student, [], None, 10.0 + steps + 100.0 * updates)

    config = replace(CONFIG, epochs=5, delta_every=2, delta_batches=3)
    dataset = small_dataset()
    one, whole = training_seconds(train, dataset, config)
    steps = len(dataset.fit) // config.batch_size
    assert one == 1.0
    assert whole == pytest.approx(5 * steps + 2 * 3 * 100.0, abs=1.0)  # two updates of three


def test_it_waits_until_the_student_is_quantized(monkeypatch):
    seen = updates(monkeypatch)
    run(replace(CONFIG, delta_every=1, quantize_from=2))
    assert seen == [2, 3]


def test_until_the_first_update_it_is_a_run_with_delta_0():
    whole, fixed = run(replace(CONFIG, delta_every=10)), run(delta=0.0)
    assert whole.history == fixed.history
    state = {k: v for k, v in whole.model.state_dict().items() if not k.endswith("delta")}
    assert equal(state, fixed.model.state_dict())
    assert run().history[:2] == fixed.history[:2]
    assert run().history[2:] != fixed.history[2:]


@pytest.mark.parametrize("options", [{}, {"save": "codes", "act_bits": 4}])
@pytest.mark.parametrize("at", [18, 19, 22, 30])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path, at, options):
    whole = run(run_dir=tmp_path / "whole", **options)
    with killed_at(at):
        run(replace(CONFIG, checkpoint_seconds=0.0), tmp_path / "cut", **options)
    again = run(run_dir=tmp_path / "cut", **options)
    assert again.history == whole.history
    assert equal(again.model.state_dict(), whole.model.state_dict())


def test_bf16_runs_are_measured_in_float32():
    result = run(replace(CONFIG, precision="bf16", accumulate=2, epochs=3))
    assert max(q.delta.item() for q in updated_quantizers(result.model).values()) > 0


def test_a_run_with_a_number_is_another_run(tmp_path):
    run(replace(CONFIG, epochs=1), tmp_path, delta=0.0)
    with pytest.raises(InputError, match=r"with other quantizers: .*delta by the Hessian here"):
        run(replace(CONFIG, epochs=1), tmp_path)


@pytest.mark.parametrize("option", ["delta_every", "delta_batches"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_bad_options_are_refused(option, value):
    with pytest.raises(InputError, match=f"^{option}: "):
        run(replace(CONFIG, **{option: value}))
