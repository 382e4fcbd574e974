"""Faults of the papers' public code, B1 to B11: none of them is here.

B1 to B5 and B11 are of its scoring run, B6 and B10 of its training loops, B7 and B8 of its
quantizers, B9 of its losses.
"""

import json

import pytest
import torch
from torch import nn

import daqakd
from daqakd import CMIState, TrainConfig
from daqakd.augment import Stream, get_strategy
from daqakd.cli._job import load_data
from daqakd.cli.rank import Options as RankOptions
from daqakd.losses import DKD
from daqakd.models import build
from daqakd.quant.surrogate import updated_quantizers
from daqakd.train.loop import Loop
from daqakd.train.store import read_model_file, save_model

from .helpers.small import SmallNet, small_dataset, write_images

CONFIG = TrainConfig(epochs=1, batch_size=16, lr=0.01, workers=0, fuse="off", diagnose="off")


class Colours(nn.Module):
    """Tells the classes by their mean colours, past a BatchNorm and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.drop = nn.BatchNorm1d(3, affine=False), nn.Dropout(0.5)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * self.drop(self.norm(x.mean((2, 3))))


def distil(strategy="minimal", config=CONFIG, **options):
    torch.manual_seed(0)
    teacher = SmallNet()
    student = daqakd.quantize(teacher, **({"weight_bits": 3, "act_bits": 3} | options))
    return daqakd.distill(student, teacher, small_dataset(), strategy=strategy, config=config)


def seen_batches(monkeypatch):
    """Return a list that gets every batch, with what the student was given for it."""
    found, given, step, forward = [], [], Loop._step, SmallNet.forward

    def watched_forward(self, x):
        given.append((self.training, x.detach()))
        return forward(self, x)

    def watched_step(self, batch):
        given.clear()
        step(self, batch)
        found.append((batch, [x for training, x in given if training], [x for _, x in given]))

    monkeypatch.setattr(SmallNet, "forward", watched_forward)
    monkeypatch.setattr(Loop, "_step", watched_step)
    return found


def test_b1_soft_labels_that_are_one_hot_are_hard_labels():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(300, 4, generator=generator)
    labels = torch.arange(300) % 4
    hard, soft = CMIState(4), CMIState(4)
    hard.update(logits, labels)
    soft.update(logits, nn.functional.one_hot(labels, 4).float())
    assert soft.cmi() == pytest.approx(hard.cmi(), rel=1e-9)
    assert soft.pac() == pytest.approx(hard.pac(), rel=1e-9)
    transposed = CMIState(4, legacy_transposed=True)
    transposed.update(logits, nn.functional.one_hot(labels, 4).float())
    assert transposed.cmi() != pytest.approx(hard.cmi(), rel=1e-3)


def test_b2_the_teacher_is_scored_in_eval_mode():
    data, teacher = small_dataset(480, holdout=0.0), Colours()
    with torch.no_grad():
        teacher(torch.randn(64, 3, 8, 8))  # statistics to go by
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    found = [
        daqakd.rank(teacher.train(mode), data, strategies=["minimal"]).records()[0]["score"]
        for mode in (True, False)
    ]
    assert found[0] == found[1]
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())


def test_b3_probabilities_of_zero_leave_the_measures_finite():
    state = CMIState(3)
    logits = torch.full((6, 3), -torch.inf)
    logits[torch.arange(6), torch.arange(6) % 3] = 0.0
    state.update(logits, torch.arange(6) % 3)
    assert (state.cmi(), state.pac()) == (0.0, 0.0)


def test_b4_partners_are_no_neighbours_on_the_disk():
    dataset = small_dataset(90, holdout=0.0)
    order = dataset.train.labels.argsort(stable=True)  # as folders are read
    pixels, labels = dataset.train.pixels[order], dataset.train.labels[order]
    partners = []
    for epoch in (0, 1):
        given = pixels, labels, get_strategy("cutmix")
        stream = Stream(*given, inputs=dataset.inputs, seed=0, flip=False)
        (batch,) = stream.epoch(epoch, 90)
        assert (batch.partner_labels != batch.labels).float().mean() > 0.4  # 2 of 3 by chance
        partners.append(batch.partner_labels[batch.index.argsort()])
    assert not torch.equal(*partners)


def test_b5_the_score_is_pac_less_cmi(tmp_path):
    data = small_dataset(480, holdout=0.0)
    daqakd.rank(Colours().eval(), data, strategies=["minimal", "cutmix"]).save(tmp_path)
    for row in json.loads((tmp_path / "ranking.json").read_text())["strategies"]:
        assert row["score"] == pytest.approx(row["pac"] - row["cmi"])
        assert row["score_plugin"] == pytest.approx(row["pac_plugin"] - row["cmi_plugin"])


def test_b6_mixed_labels_go_with_mixed_images(monkeypatch):
    found = seen_batches(monkeypatch)
    distil("cutmix")
    for batch, student, both in found:
        assert batch.partner_labels is not None
        assert len(both) == 2
        assert all(torch.equal(x, batch.images) for x in [*student, *both])


def test_b7_ewgs_updates_its_deltas():
    config = TrainConfig(epochs=2, batch_size=16, workers=0, delta_every=1, delta_batches=1)
    found = distil(config=config, method="ewgs", delta="hessian")
    deltas = [q.delta.item() for q in updated_quantizers(found.model).values()]
    assert max(deltas) > 0


def test_b8_pacts_alpha_learns_after_the_first_batch():
    start = distil(config=TrainConfig(epochs=1, batch_size=16, lr=1e-12, workers=0), method="pact")
    found = distil(config=TrainConfig(epochs=1, batch_size=16, lr=0.1, workers=0), method="pact")
    alphas = [n for n in found.model.state_dict() if n.endswith("alpha")]
    assert alphas
    moved = [
        not torch.equal(found.model.state_dict()[n], start.model.state_dict()[n]) for n in alphas
    ]
    assert all(moved)


def test_b9_a_loss_of_logits_is_given_logits():
    teacher = build("vgg8", 5)
    assert DKD().taps_of(teacher, teacher) == (["logits"], ["logits"])
    torch.manual_seed(0)
    student = daqakd.quantize(SmallNet(), weight_bits=3, act_bits=3)
    found = daqakd.distill(
        student, SmallNet(), small_dataset(), strategy="minimal", config=CONFIG, losses=[(DKD(), 1)]
    )
    assert found.history[0]["dkd"] > 0


def test_b10_minimal_trains_without_the_augmentation(monkeypatch):
    found = seen_batches(monkeypatch)
    distil("minimal")
    plain = [batch.images for batch, *_ in found]
    found.clear()
    distil("trivialaugment")
    augmented = [batch.images for batch, *_ in found]
    dataset = small_dataset()
    given = dataset.train.pixels, dataset.train.labels, get_strategy("minimal")
    own = {"inputs": dataset.inputs, "seed": 0, "pool": dataset.fit, "flip": dataset.flip}
    for batch, seen, other in zip(
        Stream(*given, **own).epoch(0, 16), plain, augmented, strict=True
    ):
        assert torch.equal(batch.images, seen)
        assert not torch.equal(batch.images, other)


def test_b11_images_are_normalised_as_the_teacher_s_were(tmp_path):
    data = str(write_images(tmp_path / "tree", 60, 30))
    trained = small_dataset().with_inputs(mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    path = tmp_path / "teacher.safetensors"
    save_model(path, SmallNet(), "tests.helpers.small:small_net", trained)
    options = RankOptions(data=data, teacher=path)
    inputs = load_data(options, read_model_file(path)).inputs
    assert (inputs.mean, inputs.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
