"""Losses beside CE and KL in a run: what they see, train and count, and that they are resumed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import daqakd
from daqakd import InputError, TrainConfig
from daqakd.losses import AT, CRD, SP
from daqakd.train import graph
from daqakd.train.feature_losses import feature_losses
from daqakd.train.loop import Loop

from ..helpers.killed import equal, killed_at
from ..helpers.small import SlimResNet, SmallNet, small_dataset

CONFIG = TrainConfig(epochs=2, batch_size=16, lr=0.01, workers=0, checkpoint_seconds=0.0)
MAPS, FEATURES = ("bn1", "conv2"), ("fc:input",)


def crd():
    return CRD(taps=FEATURES, dimensions=8, negatives=64)


def run(losses=None, config=CONFIG, run_dir=None, strategy="minimal", net=SmallNet, **options):
    torch.manual_seed(0)
    teacher = net(3)
    given = {"weight_bits": 3, "act_bits": 3} | options
    student = daqakd.quantize(teacher, **given)
    own = {"strategy": strategy, "config": config, "losses": losses, "run_dir": run_dir}
    return daqakd.distill(student, teacher, small_dataset(), **own)


def same(a, b) -> bool:
    return a.history == b.history and equal(a.model.state_dict(), b.model.state_dict())


def hooks(model):
    return [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()]


class Watched(nn.Module):
    """A loss of the user's own, with a parameter."""

    def __init__(self, taps=("conv2", "fc:input", "logits")):
        super().__init__()
        self.taps, self.scale, self.seen = list(taps), nn.Parameter(torch.ones(())), []

    def forward(self, student, teacher, batch):
        if self.training:
            self.seen.append([v.shape for v in student])
            assert not any(v.requires_grad for v in teacher)
        return self.scale * sum((s - t).square().mean() for s, t in zip(student, teacher))  # noqa: B905


def test_a_loss_of_ones_own_is_added_and_trained():
    plain, own = run(), Watched()
    found = run([(own, 2.0)])
    assert own.seen[0] == [(16, 8, 4, 4), (16, 8), (16, 3)]
    assert len(own.seen) == 2 * (len(small_dataset().fit) // 16)
    row = found.history[0]
    squared = CONFIG.kd_weight * CONFIG.temperature**2
    expected = CONFIG.ce_weight * row["ce"] + squared * row["kl"] + 2.0 * row["watched"]
    assert row["loss"] == pytest.approx(expected, rel=1e-5)
    assert "watched" not in plain.history[0]
    assert own.scale.item() != 1.0
    assert not same(plain, found)
    assert not any("scale" in name for name in found.model.state_dict())
    assert hooks(found.model) == hooks(plain.model)


def test_a_weight_of_zero_changes_no_bits():
    off = replace(CONFIG, fuse="off")  # hooks keep a chain apart
    plain, found = run(config=off), run([(SP(taps=MAPS[1:]), 0.0), (SP(taps=FEATURES), 0.0)], off)
    assert equal(plain.model.state_dict(), found.model.state_dict())
    assert {"sp", "sp2"} <= found.history[0].keys()


@pytest.mark.parametrize("at", [3, 12])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, at, accumulate):
    config = replace(CONFIG, accumulate=accumulate, ema=0.9, clip_grad=1.0)
    losses = [(crd(), 0.8), (AT(taps=MAPS), 1000.0)]
    whole = run(losses, config, tmp_path / "whole")
    with killed_at(at):
        run([(crd(), 0.8), (AT(taps=MAPS), 1000.0)], config, tmp_path / "cut")
    again = [(crd(), 0.8), (AT(taps=MAPS), 1000.0)]
    assert same(run(again, config, tmp_path / "cut"), whole)
    assert equal(again[0][0].state_dict(), losses[0][0].state_dict())


def test_a_killed_run_goes_on_with_the_losses_that_it_began_with(tmp_path):
    whole, losses = run([(crd(), 0.8)]), [(crd(), 0.8)]
    with killed_at(3):
        run(losses, run_dir=tmp_path)
    assert same(run(losses, run_dir=tmp_path), whole)
    with killed_at(3):
        run([(Watched(), 1.0)], run_dir=tmp_path / "own")
    with pytest.raises(InputError, match="with other options: losses"):
        run([(Watched(["fc"]), 1.0)], run_dir=tmp_path / "own")


def test_a_recorded_step_has_the_same_bits(monkeypatch):
    plain = run([(crd(), 0.8)])
    monkeypatch.setattr(graph, "record", lambda work: work)
    monkeypatch.setattr("daqakd.train.loop.can_record", lambda config, device: True)
    assert same(plain, run([(crd(), 0.8)]))


def test_a_step_is_recorded_anew_where_an_epoch_changes_a_loss():
    student, teacher = SmallNet(), SmallNet()
    for loss, changes in ((crd(), True), (SP(taps=MAPS), False), (Watched(), False)):
        with feature_losses([(loss, 1.0)], student, teacher) as part:
            assert part.rewrites == changes


def test_the_options_name_one():
    config = replace(CONFIG, kd="sp", taps=MAPS, kd_loss_weight=3.0)
    assert same(run(config=config), run([(SP(taps=MAPS), 3.0)]))
    weighted = run(config=replace(config, kd_loss_weight=None))
    assert same(weighted, run([(SP(taps=MAPS), 3000.0)]))


def test_a_fused_student_sees_the_same_losses():
    fused = run([(SP(taps=("blocks.0", "blocks")), 1.0)], net=SlimResNet)
    off = replace(CONFIG, fuse="off")
    plain = run([(SP(taps=("blocks.0", "blocks")), 1.0)], off, net=SlimResNet)
    first, second = fused.history[0]["sp"], plain.history[0]["sp"]
    assert first == pytest.approx(second, rel=0.05)


def test_kd_only_reads_no_labels(monkeypatch):
    config = replace(CONFIG, kd_only=True)
    found = run(config=config)
    assert found.history[0]["ce"] == 0.0
    dataset = small_dataset()
    other = replace(dataset, train=replace(dataset.train, labels=dataset.train.labels * 0))
    monkeypatch.setattr("tests.train.test_feature_losses.small_dataset", lambda: other)
    assert equal(run(config=config).model.state_dict(), found.model.state_dict())


def test_without_a_teacher_its_pass_does_not_run(monkeypatch):
    calls, original = [], SmallNet.forward

    def counted(self, x):
        calls.append(self.training)
        return original(self, x)

    monkeypatch.setattr(SmallNet, "forward", counted)
    step, seen = Loop._step, []

    def watched(self, batch):
        before = len(calls)
        step(self, batch)
        seen.append(len(calls) - before)

    monkeypatch.setattr(Loop, "_step", watched)
    config = replace(CONFIG, fuse="off", diagnose="off")
    found = run(config=replace(config, no_teacher=True))
    assert set(seen) == {1}
    assert found.history[0]["kl"] == 0.0
    seen.clear()
    run(config=config)
    assert set(seen) == {2}


def test_another_loss_is_another_run(tmp_path):
    with killed_at(3):
        run([(SP(taps=MAPS), 1.0)], run_dir=tmp_path)
    for other in (None, [(SP(taps=MAPS), 2.0)], [(AT(taps=MAPS), 1.0)], [(SP(taps=MAPS[:1]), 1.0)]):
        with pytest.raises(InputError, match="with other options: losses"):
            run(other, run_dir=tmp_path)
    run([(SP(taps=MAPS), 1.0)], run_dir=tmp_path)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        (SP(), "losses: expected a list of"),
        ([SP(taps=MAPS)], "expected pairs of a loss and a weight"),
        ([(SP(taps=MAPS), -1)], "expected pairs of a loss and a weight"),
        ([(SP(taps=MAPS), "1")], "expected pairs of a loss and a weight"),
        ([(len, 1.0)], "expected a torch.nn.Module"),
        ([(nn.ReLU(), 1.0)], "ReLU has no taps; name the modules"),
        ([(SP(), 1.0)], "SmallNet has no known ones; name the modules to compare"),
        ([(SP(taps=("conv3",)), 1.0)], "no module 'conv3'. Did you mean 'conv1'|'conv2'"),
        ([(AT(taps=FEATURES), 1.0)], "AT: a tap gives .16, 8., expected 4 dimensions"),
        ([(Watched(taps=("bn1", "fc")), 1.0)], None),
    ],
)
def test_sentences(losses, said, tmp_path):
    if said is None:
        run(losses)
        return
    with pytest.raises(InputError, match=said):
        run(losses, run_dir=tmp_path)
    assert not (tmp_path / "checkpoint").exists()


class Wrong(nn.Module):
    taps = ("fc",)

    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, student, teacher, batch):
        if isinstance(self.value, Exception):
            raise self.value
        return self.value


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.0, "Wrong returned 1.0, expected a tensor"),
        (torch.zeros(2), "Wrong returned Tensor torch.float32 .2., expected a tensor"),
        (RuntimeError("odd"), "Wrong fails on the first training images .RuntimeError: odd"),
    ],
)
def test_what_a_loss_of_ones_own_does_wrong(value, said):
    with pytest.raises(InputError, match=said):
        run([(Wrong(value), 1.0)])


def test_mixed_images_are_refused_before_anything_is_kept(tmp_path):
    with pytest.raises(InputError, match="CRD: is not defined for images mixed from two"):
        run([(crd(), 1.0)], run_dir=tmp_path, strategy="cutmix")
    assert not (tmp_path / "checkpoint").exists()
    run([(SP(taps=MAPS), 1.0)], strategy="cutmix")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kd": "sq"}, "unknown kd 'sq'"),
        ({"taps": ("fc",)}, "taps: belongs to --kd"),
        ({"kd_loss_weight": 1.0}, "kd_loss_weight: belongs to --kd"),
        ({"kd": "sp", "kd_loss_weight": -1.0}, "kd_loss_weight: expected at least 0"),
        ({"kd": "sp", "no_teacher": True}, "no_teacher: without a teacher"),
        ({"kd_only": True, "no_teacher": True}, "no_teacher: without a teacher"),
    ],
)
def test_options_that_cannot_be_meant(options, said):
    with pytest.raises(InputError, match=said):
        TrainConfig(**options).check()
