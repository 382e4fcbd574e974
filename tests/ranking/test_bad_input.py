"""Wrong types and values of states, rankings, strategies and streams: one sentence each."""

# mypy: disable-error-code="var-annotated"

from typing import Any

import numpy as np
import pytest
import torch

import daqakd
from daqakd import CMIState, InputError, InputSpec, RankConfig, SearchConfig
from daqakd.augment import Stream, get_strategy, register_strategy

from ..helpers.refusals import refused
from ..helpers.small import SmallNet, small_dataset

Z, Y = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
W = torch.full((6,), 0.5)
DATA = small_dataset(120)
SUMS = CMIState(3).sums


def state(**options) -> CMIState:
    made = CMIState(3, **options)
    made.update(Z, Y)
    return made


def update(logits, labels, *fold) -> None:
    CMIState(3).update(logits, labels, *fold)


def load(saved) -> None:
    CMIState(3).load_state_dict(saved)


def rank(teacher=None, dataset=DATA, **options) -> None:
    daqakd.rank(SmallNet() if teacher is None else teacher, dataset, **options)


def search(teacher=None, dataset=DATA, **options) -> None:
    daqakd.search(SmallNet() if teacher is None else teacher, dataset, **options)


def stream(**changes) -> Stream:
    plain: dict[str, Any] = {"pixels": DATA.train.pixels, "labels": DATA.train.labels, "seed": 0}
    plain |= {"strategy": get_strategy("cutmix"), "inputs": InputSpec()}
    return Stream(**plain | changes)


CALLS = [
    *(("num_classes: expected an integer", lambda c=c: CMIState(c)) for c in ("3", 0, -1, 1.5)),
    *(("num_classes: expected an integer", lambda c=c: CMIState(c)) for c in (None, True, [3])),
    *(("folds: expected an integer", lambda f=f: CMIState(3, folds=f)) for f in (0, "2", 1.5)),
    *(("device: expected a device", lambda d=d: CMIState(3, device=d)) for d in ("nope", [], 1.5)),
    *(("logits: expected", lambda z=z: update(z, Y)) for z in (Z.tolist(), Z.numpy(), None, Z[0])),
    *(("labels: expected", lambda y=y: update(Z, y)) for y in (Y.tolist(), Y.numpy(), None, 3)),
    *(("labels: expected", lambda y=y: update(Z, y)) for y in ((Y, Y), (Y, Y, 0.5), [Y, Y, W])),
    *(("labels: ", lambda y=y: update(Z, y)) for y in (Y.int(), Y[:2], torch.rand(6, 4))),
    ("weight: expected floating point", lambda: update(Z, (Y, Y, W.long()))),
    ("weight: expected floating point", lambda: update(Z, (Y, Y, W[:2]))),
    *(("fold: expected", lambda f=f: update(Z, Y, f)) for f in ("a", 1, -1, 0.5, None, True)),
    *(("fold: expected", lambda f=f: update(Z, Y, f)) for f in ([0] * 6, np.zeros(6, int))),
    *(("fold: expected", lambda f=f: update(Z, Y, f)) for f in (Y[:2], Y.float(), Y[None])),
    *(("other: ", lambda o=o: state().merge(o)) for o in (None, SUMS, CMIState(4))),
    *(("state: expected", lambda s=s: load(s)) for s in (None, {}, [], {"sums": [1]})),
    ("state: expected", lambda: load({"sums": SUMS, "log_probs": Z})),
    ("state: expected", lambda: load({"sums": SUMS, "log_probs": Z, "targets": Z[:2], "fold": Y})),
    *(("sums: expected", lambda s=s: load({"sums": s})) for s in (SUMS.double(), SUMS[:0])),
    *(("left_out: expected", lambda f=f: state().measures(f)) for f in (1, -1, "a", [0])),
    *(("cmi_weight: expected", lambda w=w: state().score(w)) for w in ("a", None, float("nan"))),
    ("pac_weight: expected", lambda: state(folds=2).standard_error(pac_weight=True)),
    ("folds: a standard error needs 2", lambda: state().standard_error()),
    *(("teacher: expected", lambda t=t: rank(t)) for t in (abs, "resnet20", {})),
    *(("dataset: expected", lambda d=d: rank(dataset=d)) for d in (None, [1], "digits", Z)),
    *(("config: expected", lambda c=c: rank(config=c)) for c in ({"images": 3}, SearchConfig(), 1)),
    ("unknown option 'imagess'.*Did you mean 'images'", lambda: rank(imagess=3)),
    *(("run_dir: expected", lambda r=r: rank(run_dir=r)) for r in (5, b"x", [])),
    *(("strategies: expected", lambda s=s: rank(strategies=s)) for s in ("minimal", [1], [None])),
    ("images: expected", lambda: rank(images=np.int64(60))),
    ("mean: expected", lambda: rank(mean="abc")),
    ("unknown semantics '3'", lambda: rank(semantics=3)),
    *(
        ("images: ", lambda i=i: rank(images=i))
        for i in (0, -1, 59, 121, True, 2**70, float("nan"))
    ),
    *(("passes: expected", lambda p=p: rank(passes=p)) for p in (0, 0.5, 10001, 2**70)),
    *(("workers: expected", lambda w=w: rank(workers=w)) for w in (-1, 1.5, 2**40, "all")),
    *(("budget: expected", lambda b=b: rank(budget=b)) for b in (0, -1, float("inf"), "1", True)),
    *(("cmi_weight: expected", lambda w=w: rank(cmi_weight=w)) for w in (10**400, 1e300, None)),
    *(("until_sure: ", lambda u=u: rank(until_sure=u)) for u in ("yes", 1, True)),
    *(("quiet: expected", lambda q=q: rank(quiet=q)) for q in (None, 1, "no")),
    *(("run_dir: expected a path", lambda r=r: rank(run_dir=r)) for r in ("", "\0", True)),
    *(("teacher: returns", lambda c=c: rank(SmallNet(c))) for c in (2, 5)),
    ("teacher: is on the meta device", lambda: rank(SmallNet().to("meta"))),
    *(
        ("teacher: its forward pass fails on images", lambda t=t: rank(t))
        for t in (SmallNet().double(), SmallNet().half(), torch.nn.Linear(9, 3))
    ),
    *(
        ("compositions: expected", lambda c=c: search(compositions=c))
        for c in (0, 1, 10001, 2.5, "9", True, 2**70)
    ),
    *(("unknown option", lambda o=o: search(**{o: 3})) for o in ("budget", "passes", "nope")),
    *(("run_dir: expected", lambda r=r: search(run_dir=r)) for r in (3, b"x")),
    ("teacher: expected", lambda: search(abs)),
    ("dataset: expected", lambda: search(dataset=None)),
    ("config: expected", lambda: search(config=RankConfig())),
    ("unknown option 'strategies'", lambda: search(strategies=["minimal"])),
    *(("strategy: expected a name", lambda n=n: get_strategy(n)) for n in (None, 3, [])),
    ("rotate needs a magnitude", lambda: get_strategy("rotate@٣")),
    *(("name: expected a string", lambda n=n: register_strategy(n, abs)) for n in (None, [], 3)),
    ("strategy: expected a Strategy, got str", lambda: stream(strategy="minimal")),
    ("inputs: expected a InputSpec, got NoneType", lambda: stream(inputs=None)),
    ("pixels: expected a Tensor", lambda: stream(pixels=DATA.train.pixels.numpy())),
    ("pixels: expected uint8", lambda: stream(pixels=DATA.train.pixels.float())),
    ("labels: expected a Tensor", lambda: stream(labels=[0])),
    ("labels: expected int64", lambda: stream(labels=DATA.train.labels[:3])),
    ("unknown box 'x'", lambda: stream(box="x")),
]


@pytest.mark.parametrize(("message", "call"), CALLS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)


class Moody(SmallNet):
    """Returns NaN for some images that a strategy changed."""

    def __init__(self, dark: float) -> None:
        super().__init__()
        self.dark = dark

    def forward(self, images):
        logits = super().forward(images)
        spoilt = (images.flatten(1).amin(1) < self.dark)[:, None]
        return torch.where(spoilt, float("nan"), logits)


def test_nan_of_a_teacher_names_the_strategy(monkeypatch):
    monkeypatch.setattr("daqakd.ranking.ranker.teacher_accuracy", lambda job: 1.0)
    with pytest.raises(InputError, match=r"strategy 'minimal': the CMI state saw \d+ rows of NaN"):
        daqakd.rank(Moody(100.0), DATA, strategies=["minimal"])
