"""What takes part in a run beside the loss: averages, the best state, and how both are resumed."""

import threading
from dataclasses import replace

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.augment import Stream
from daqakd.train import averaging, diagnostics

from ..helpers.killed import equal, killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=3, batch_size=16, lr=0.01, workers=0)
ALL = replace(CONFIG, ema=0.8, accumulate=2, clip_grad=0.5, quantizer_optimizer="sgd")
ALL = replace(ALL, damping=0.01, freeze_oscillating=0.015)


def run(config=CONFIG, run_dir=None, strategy="cutmix"):
    torch.manual_seed(0)
    teacher = SmallNet()
    student = daqakd.quantize(teacher, weight_bits=3, act_bits=3)
    options = {"strategy": strategy, "config": config, "run_dir": run_dir}
    return daqakd.distill(student, teacher, small_dataset(), **options)


@pytest.mark.parametrize("at", [1, 8, 14, 20])
def test_all_of_it_resumes_to_the_same_bits(tmp_path, monkeypatch, at):
    monkeypatch.setattr(diagnostics, "EVERY", 2)
    whole = run(ALL, tmp_path / "whole")
    with killed_at(at):
        run(replace(ALL, checkpoint_seconds=0.0), tmp_path / "cut")
    again = run(ALL, tmp_path / "cut")
    assert again.history == whole.history
    assert min(whole.history[-1][name] for name in ("oscillating", "frozen")) > 0
    for name in ("metrics.csv", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert equal(again.model.state_dict(), whole.model.state_dict())
    assert again.kept.keys() == {"ema", "best"} == whole.kept.keys()
    for name, values in whole.kept.items():
        assert equal(again.kept[name], values)


def test_the_average_is_that_of_every_step(monkeypatch):
    seen, step = [], averaging.WeightAverage.after_step

    def watched(self, number):
        seen.append(self.model.conv1.weight.detach().double().clone())
        step(self, number)

    monkeypatch.setattr(averaging.WeightAverage, "after_step", watched)
    first = []
    monkeypatch.setattr(
        averaging.WeightAverage,
        "before_step",
        lambda self, number: number or first.append(self.values["conv1.weight"].double().clone()),
    )
    found = run(replace(CONFIG, ema=0.6)).kept["ema"]["conv1.weight"]
    (wanted,) = first
    for n, value in enumerate(seen):
        decay = min(0.6, (1 + n) / (10 + n))
        wanted = decay * wanted + (1 - decay) * value
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-7)


def test_the_average_is_evaluated_and_the_last_weights_go_on():
    averaged, plain = run(replace(CONFIG, ema=0.5)), run()
    assert equal(averaged.model.state_dict(), plain.model.state_dict())
    for row, other in zip(averaged.history, plain.history, strict=True):
        assert row.pop("ema_accuracy") is not None
        assert row == other


def test_the_best_state_is_the_first_of_the_highest_accuracy(monkeypatch):
    accuracies, states = iter([0.5, 0.75, 0.75]), []
    end = averaging.Best.end_epoch

    def told(self, epoch, accuracy):
        states.append({k: v.clone() for k, v in self.model.state_dict().items()})
        return end(self, epoch, next(accuracies))

    monkeypatch.setattr(averaging.Best, "end_epoch", told)
    assert equal(run().kept["best"], states[1])
    assert not equal(states[1], states[2])


@pytest.mark.parametrize("parts", [2, 4])
def test_a_batch_in_parts_has_the_gradients_of_the_whole(parts):
    config = replace(CONFIG, epochs=1, optimizer="sgd", momentum=0.0, schedule="constant")
    moved = []
    for pieces in (1, parts):
        torch.manual_seed(0)
        teacher = SmallNet()
        teacher.bn1 = torch.nn.GroupNorm(2, 8)  # BatchNorm sees a part at a time
        student = daqakd.quantize(teacher, weight_bits=8, act_bits=8)
        own = replace(config, accumulate=pieces)
        daqakd.distill(student, teacher, small_dataset(), strategy="cutmix", config=own)
        moved.append(dict(student.named_parameters()))
    for name, value in moved[0].items():
        torch.testing.assert_close(moved[1][name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("images", [3, 7])
def test_parts_of_fewer_images_than_a_batch_are_equal(images):
    config = replace(CONFIG, batch_size=8, accumulate=4)
    few = small_dataset(images, holdout=0.0)
    with pytest.raises(InputError, match=rf"^accumulate: 4 equal parts of a batch of {images} "):
        daqakd.teach(SmallNet(), few, config=config)


def test_clipped_gradients_are_no_longer_than_asked_for(monkeypatch):
    norms, step = [], torch.optim.Adam.step

    def watched(self, *args):
        every = [p.grad for group in self.param_groups for p in group["params"]]
        norms.append(torch.nn.utils.get_total_norm([g for g in every if g is not None]))
        return step(self, *args)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    run(replace(CONFIG, epochs=1, clip_grad=0.01))
    assert norms
    assert max(norms) <= 0.01 * (1 + 1e-4)


@pytest.mark.parametrize("strategy", ["trivialaugment", "cutmix"])
def test_batches_made_ahead_are_the_same(monkeypatch, strategy):
    threads = torch.get_num_threads()
    monkeypatch.setattr("os.cpu_count", lambda: threads + 1)
    made, split = set(), Stream._batch

    def watched(self, *args):
        made.add(threading.current_thread() is threading.main_thread())
        return split(self, *args)

    monkeypatch.setattr(Stream, "_batch", watched)
    ahead, made_ahead = run(strategy=strategy), made.copy()
    made.clear()
    in_turn = run(replace(CONFIG, prefetch="off"), strategy=strategy)
    assert made_ahead == {False, True}  # the first batches calibrate
    assert made == {True}
    assert ahead.history == in_turn.history
    assert equal(ahead.model.state_dict(), in_turn.model.state_dict())


def test_bf16_keeps_weights_and_steps_in_float32():
    """And trains as well as float32 does, to what 8 bits of mantissa leave."""
    half, full = run(replace(CONFIG, precision="bf16")), run()
    assert {v.dtype for v in half.model.state_dict().values()} == {
        v.dtype for v in full.model.state_dict().values()
    }
    for row, other in zip(half.history, full.history, strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=0.02)
        assert row["loss"] != other["loss"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"accumulate": 3}, "accumulate"),
        ({"accumulate": 0}, "accumulate"),
        ({"ema": 1.0}, "ema"),
        ({"ema": -0.1}, "ema"),
        ({"momentum": 1.0}, "momentum"),
        ({"clip_grad": 0.0}, "clip_grad"),
        ({"reestimate_bn": -1}, "reestimate_bn"),
        ({"optimizer": "rmsprop"}, "optimizer"),
        ({"warmup_start": -1.0}, "warmup_start"),
    ],
)
def test_options_that_cannot_be_are_named(options, named):
    with pytest.raises(InputError, match=f"^{named}: "):
        replace(CONFIG, **options).check()
