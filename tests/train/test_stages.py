"""Students that are quantized late, or at widths that become smaller: where each stage starts."""

import copy
from dataclasses import replace

import pytest
import torch

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.quant.base import Quantizer
from daqakd.quant.grids import quantized_layers
from daqakd.quant.passing import pass_through, start_anew
from daqakd.train import averaging, diagnostics, trainer
from daqakd.train.objective import layout_of
from daqakd.train.stages import Stage, Stages, first_batches, stages_of

from ..helpers.killed import equal, killed_at
from ..helpers.small import SmallNet, small_dataset

CONFIG = TrainConfig(epochs=3, batch_size=16, lr=0.02, workers=0)
LATE = replace(CONFIG, quantize_from=1)
LOWERED = replace(CONFIG, bits_schedule=(8, 5, 3))
BOTH = replace(CONFIG, quantize_from=1, bits_schedule=(4, 3))
STEPS = 9  # of an epoch
METHODS = [
    {"method": "lsq"},
    {"method": "lsq", "per_channel": True, "save": "codes", "first_last": "same"},
    {"method": "pact", "first_last": "same"},
    {"method": "dorefa", "first_last": "same"},
    {"method": "ewgs", "first_last": "same"},
    {"method": "ewgs", "act_bits": None},
    {"method": "seq", "weight_levels": 3, "first_last": "same"},
]
EXACTLY = {"rtol": 0, "atol": 0}
IDS = ["lsq", "channels", "pact", "dorefa", "ewgs", "weights", "ternary"]


def teacher() -> SmallNet:
    torch.manual_seed(0)
    return SmallNet()


def quantized(model=None, **options):
    options = {"weight_bits": 3, "act_bits": 3} | options
    return daqakd.quantize(teacher() if model is None else model, **options)


def run(config, run_dir=None, student=None, **options):
    student = quantized(**options) if student is None else student
    given = {"strategy": "cutmix", "config": config, "run_dir": run_dir}
    return daqakd.distill(student, teacher(), small_dataset(), **given)


@pytest.mark.parametrize(
    ("epochs", "start", "widths", "wanted"),
    [
        (3, 0, (), []),
        (3, 2, (), [Stage(0, False), Stage(2)]),
        (7, 0, (8, 4, 2), [Stage(0, bits=8), Stage(3, bits=4), Stage(5, bits=2)]),
        (8, 0, (8, 4, 2), [Stage(0, bits=8), Stage(3, bits=4), Stage(6, bits=2)]),
        (5, 2, (4, 2), [Stage(0, False), Stage(2, bits=4), Stage(4, bits=2)]),
        (3, 0, (2,), [Stage(0, bits=2)]),
    ],
)
def test_the_epochs_are_shared_evenly(epochs, start, widths, wanted):
    config = TrainConfig(epochs=epochs, quantize_from=start, bits_schedule=widths)
    config.check()
    assert stages_of(config) == wanted


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("options", METHODS, ids=IDS)
def test_what_passes_through_is_the_layer_of_before(options, fused):
    student, plain, x = quantized(**options), teacher(), torch.randn(6, 3, 16, 16)
    daqakd.calibrate(student, x)
    student = daqakd.fuse(student) if fused else student
    before = student.eval()(x)
    pass_through(student, True)
    assert torch.equal(student(x), plain.eval()(x))
    student.train()(x).square().sum().backward()
    plain.train()(x).square().sum().backward()
    grads = {name: p.grad for name, p in student.named_parameters() if p.grad is not None}
    wanted = {name: p.grad for name, p in plain.named_parameters()}
    rounded = fused and options.get("act_bits", 3) is None  # norm and ReLU run as one op still
    torch.testing.assert_close(grads, wanted, **({} if rounded else EXACTLY))
    student.load_state_dict(plain.state_dict(), strict=False)
    pass_through(student, False)
    student.bn1.load_state_dict(teacher().bn1.state_dict())
    assert torch.equal(student.eval()(x), before)


def test_nothing_is_quantized_in_vain():
    student, seen = quantized(), []
    daqakd.calibrate(student, torch.randn(6, 3, 16, 16))
    student.conv2.register_forward_hook(lambda layer, *_: seen.append(layer.cached_weight))
    for wanted in (False, True, False):
        pass_through(student, wanted)
        student(torch.randn(2, 3, 16, 16))
    assert [cached is None for cached in seen] == [False, True, False]


@pytest.mark.parametrize("options", METHODS, ids=IDS)
def test_starting_anew_is_quantizing_the_weights_of_now(options):
    student, x = quantized(**options), torch.randn(6, 3, 16, 16)
    daqakd.calibrate(student, torch.randn(9, 3, 16, 16))
    moved = SmallNet()
    student.load_state_dict(moved.state_dict(), strict=False)
    start_anew(student, x)
    wanted = daqakd.calibrate(quantized(moved, **options), x)
    assert equal(student.state_dict(), wanted.state_dict())
    assert torch.equal(student.eval()(x), wanted.eval()(x))


def settings(student):
    """Return what the weight quantizers call their ops with."""
    return [layer.weight_quantizer.settings() for _, layer in quantized_layers(student)]


def beginnings(monkeypatch, config, **options):
    """Return state, widths and settings with which each epoch of a run begins, and its result."""
    seen, begin = [], Stages.before_epoch

    def watched(self, epoch):
        begin(self, epoch)
        bits = {n: m.bits for n, m in self.student.named_modules() if isinstance(m, Quantizer)}
        seen.append((copy.deepcopy(self.student.state_dict()), bits, settings(self.student)))

    with monkeypatch.context() as patch:
        patch.setattr(Stages, "before_epoch", watched)
        return seen, run(config, **options)


def started(state, config, widths, **options):
    """Return a student of these weights, calibrated on the first batches."""
    model = SmallNet()
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    device = torch.device("cpu")
    stream = trainer._stream(small_dataset(), "cutmix", config, device)
    model.to(memory_format=layout_of(device))
    student = quantized(model, **options | {"weight_bits": widths[0], "act_bits": widths[1]})
    return daqakd.calibrate(student, first_batches(stream, config))


@pytest.mark.parametrize("fuse", ["auto", "off"])
@pytest.mark.parametrize("options", METHODS, ids=IDS)
def test_full_precision_first_then_what_the_weights_are_by_then(monkeypatch, options, fuse):
    config = replace(LATE, fuse=fuse, quantize_from=2, diagnose="off")
    found, result = beginnings(monkeypatch, config, **options)
    weights_only = options.get("act_bits", 3) is None  # norm and ReLU run as one op in both
    full = replace(config, quantize_from=0, fuse=fuse if weights_only else "off")
    plain = run(full, student=teacher())
    assert result.history[:2] == plain.history[:2]
    assert result.history[2]["loss"] != plain.history[2]["loss"]
    widths = 3, options.get("act_bits", 3)
    assert equal(found[2][0], started(found[2][0], config, widths, **options).state_dict())
    assert not torch.equal(found[2][0]["conv2.weight"], found[0][0]["conv2.weight"])


@pytest.mark.parametrize("options", METHODS[:5], ids=IDS[:5])
def test_widths_become_smaller(monkeypatch, options):
    fixed = {"conv2": {"weight_bits": 6}}
    found, result = beginnings(monkeypatch, LOWERED, overrides=fixed, **options)
    ends = options.get("first_last") == "same"
    for (state, bits, called), width in zip(found, LOWERED.bits_schedule, strict=True):
        own = width if ends else 8
        assert bits["conv2.weight_quantizer"] == 6
        assert bits["conv2.act_quantizer"] == width
        assert {bits[f"{n}_quantizer"] for n in ("conv1.weight", "fc.act")} == {own}
        wanted = started(state, LOWERED, (width, width), overrides=fixed, **options)
        assert equal(state, wanted.state_dict())
        assert called == settings(wanted)
    model = result.model
    other = quantized(overrides=fixed, **options)
    other.load_state_dict(model.state_dict())
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(model(x), other.eval()(x))
    assert settings(model) == settings(other)


ALL = {"ema": 0.8, "damping": 0.01, "freeze_oscillating": 0.015, "quantizer_optimizer": "sgd"}


@pytest.mark.parametrize(
    ("config", "at"),
    [
        *((LATE, at) for at in (5, STEPS + 1, STEPS + 2)),
        *((LOWERED, at) for at in (5, STEPS + 2, 2 * STEPS + 1)),
        *((BOTH, at) for at in (STEPS + 1, 2 * STEPS + 4)),
    ],
)
def test_it_resumes_to_the_same_bits(tmp_path, monkeypatch, config, at):
    monkeypatch.setattr(diagnostics, "EVERY", 2)
    config, options = replace(config, **ALL), {"method": "ewgs", "save": "codes"}
    whole = run(config, tmp_path / "whole", **options)
    with killed_at(at):
        run(replace(config, checkpoint_seconds=0.0), tmp_path / "cut", **options)
    again = run(config, tmp_path / "cut", **options)
    assert again.history == whole.history
    for name in ("metrics.csv", "metrics.jsonl"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert equal(again.model.state_dict(), whole.model.state_dict())
    for name, values in whole.kept.items():
        assert equal(again.kept[name], values)
    done = run(config, tmp_path / "cut", **options)  # nothing is left to train
    assert done.heldout_accuracy == whole.heldout_accuracy
    assert torch.equal(*(r.model(torch.ones(2, 3, 16, 16)) for r in (done, whole)))


@pytest.mark.parametrize(
    ("config", "first"), [(LATE, 1), (LOWERED, 2), (BOTH, 2)], ids=["late", "lowered", "both"]
)
def test_only_the_last_stage_is_watched_and_kept(monkeypatch, config, first):
    accuracies, states = iter([0.9, 0.8, 0.7, 0.6, 0.5, 0.4]), {}
    monkeypatch.setattr(trainer, "accuracy", lambda *args: next(accuracies))
    finish = averaging.Best.end_epoch

    def watched(self, epoch, accuracy):
        states[epoch] = copy.deepcopy(self.model.state_dict())
        return finish(self, epoch, accuracy)

    monkeypatch.setattr(averaging.Best, "end_epoch", watched)
    result = run(replace(config, **ALL))
    assert [*states] == [*range(first, 3)]
    assert equal(result.kept["best"], states[first])
    for epoch, row in enumerate(result.history):
        columns = {"ema_accuracy", "oscillating", "no_gradient", "frozen"} & row.keys()
        assert len(columns) == (0 if epoch < first else 4)


def test_the_average_starts_with_the_last_stage(monkeypatch):
    seen, step = [], averaging.WeightAverage.after_step
    before = averaging.WeightAverage.before_step

    def noted(self):
        return {n: v.double().clone() for n, v in self.model.state_dict().items()}

    def watched_before(self, number):
        if number == STEPS:
            seen.append(noted(self))
        before(self, number)
        if number == STEPS:
            assert equal({n: v.double() for n, v in self.values.items()}, seen[0])

    def watched(self, number):
        seen.append(noted(self))
        step(self, number)

    monkeypatch.setattr(averaging.WeightAverage, "before_step", watched_before)
    monkeypatch.setattr(averaging.WeightAverage, "after_step", watched)
    found = run(replace(LATE, ema=0.6)).kept["ema"]
    assert len(seen) == 1 + 2 * STEPS
    for name in ("conv1.weight", "conv2.act_quantizer.step"):
        wanted = seen[0][name]
        for n, state in enumerate(seen[1:]):
            decay = min(0.6, (1 + n) / (10 + n))
            wanted = decay * wanted + (1 - decay) * state[name]
        torch.testing.assert_close(found[name].double(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("config", [LATE, LOWERED], ids=["late", "lowered"])
def test_a_student_is_left_as_it_computes_at_the_end(config):
    student = quantized()
    with killed_at(1, "_finish_epoch"):
        run(config, student=student)
    bits = [q.bits for q in student.modules() if isinstance(q, Quantizer)]
    assert bits == [q.bits for q in quantized().modules() if isinstance(q, Quantizer)]
    other = quantized()
    other.load_state_dict(student.state_dict())
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(student.eval()(x), other.eval()(x))


def test_off_leaves_checkpoints_as_they_were(tmp_path):
    run(replace(CONFIG, epochs=1), tmp_path)
    file = daqakd._files.read_tensors(tmp_path / "checkpoint" / "student.safetensors")
    assert not [name for name in file[0] if name.startswith("part.stages")]


def test_stages_belong_to_a_run(tmp_path):
    run(replace(LATE, epochs=2), tmp_path / "late")
    with pytest.raises(InputError, match=r"quantize_from \(1 there, 0 here\)"):
        run(CONFIG, tmp_path / "late")
    assert len(run(LATE, tmp_path / "late").history) == 3
    run(LOWERED, tmp_path / "lowered")
    with pytest.raises(InputError, match=r"with other options: epochs \(3 there, 4 here\)"):
        run(replace(LOWERED, epochs=4), tmp_path / "lowered")
    with pytest.raises(InputError, match=r"bits_schedule \(8, 5, 3 there, 4, 3 here\)"):
        run(replace(LOWERED, bits_schedule=(4, 3)), tmp_path / "lowered")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"quantize_from": 3}, "quantize_from: 3 epochs at full precision leave none of 3"),
        ({"quantize_from": -1}, "quantize_from: expected"),
        ({"quantize_from": 1.5}, "quantize_from: expected"),
        ({"bits_schedule": (4, 8, 3)}, "each below the one before, got 4 8 3"),
        ({"bits_schedule": (4, 4, 3)}, "each below the one before, got 4 4 3"),
        ({"bits_schedule": (16, 3)}, "from 1 to 8 bits, each below the one before, got 16 3"),
        ({"bits_schedule": (3, 0)}, "from 1 to 8 bits"),
        ({"bits_schedule": (6, 5, 4, 3)}, "6 5 4 3 are 4 parts, and there are 3 epochs"),
        ({"bits_schedule": (5, 4, 3), "quantize_from": 1}, "3 parts, and there are 2 epochs"),
        ({"bits_schedule": (8, 4)}, r"ends with 4 bits, and conv2.weight_quantizer has 3; the"),
        ({"bits_schedule": [8, 3]}, "bits_schedule: expected"),
    ],
)
def test_what_cannot_be_meant_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        run(replace(CONFIG, **change))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"act_bits": 4}, "ends with 3 bits, and conv2.act_quantizer has 4"),
        ({"weight_bits": None, "act_bits": 4}, "ends with 3 bits, and conv2.act_quantizer has 4"),
        (
            {"overrides": {"conv2": {"weight_bits": 5, "act_bits": 5}}},
            "every layer of the student has a width of its own",
        ),
    ],
)
def test_a_schedule_needs_one_width(options, message):
    with pytest.raises(InputError, match=f"bits_schedule: {message}"):
        run(LOWERED, **options)
