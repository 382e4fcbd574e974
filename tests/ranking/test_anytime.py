"""Rankings that stop early: how often they are wrong, what they save, what a kill leaves."""

import json
import math
from collections import Counter

import pytest
import torch

import daqakd
from daqakd import InputError, InputSpec
from daqakd.augment import Batch
from daqakd.data.dataset import Images, make
from daqakd.ranking import RankConfig, job, ranker, rounds
from daqakd.ranking.accumulator import Accumulator
from daqakd.ranking.anytime import DropSeparated, planned_stop, round_images
from daqakd.ranking.checkpoint import Checkpoint
from daqakd.ranking.job import Job
from daqakd.ranking.rounds import Rounds

from ..helpers.small import SmallNet, small_dataset

COUNT = 1280
NAMES = ["identity", "identity+identity", "identity+identity+identity"]


def truth(shift: float, spread: float) -> float:
    """Return the score of two classes whose own class leads by N(shift, spread^2)."""
    z = torch.linspace(-12, 12, 20001, dtype=torch.float64)
    mass = torch.exp(-z * z / 2)
    mass = mass / mass.sum()
    p = torch.sigmoid(shift + spread * z)
    q = (mass * p).sum()
    entropy = (mass * (torch.special.entr(p) + torch.special.entr(1 - p))).sum()
    centroid = torch.special.entr(q) + torch.special.entr(1 - q)
    return float(-q.log() - (centroid - entropy))


def shift_of(score: float, spread: float) -> float:
    """Return the shift with which a spread has this score."""
    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if truth(middle, spread) > score else (low, middle)
    assert truth(high, spread) == pytest.approx(score, abs=1e-9)
    return high


class Oracle(torch.nn.Module):
    """Passes the check of the teacher: the two classes are black and white."""

    def forward(self, x):
        bright = x.mean((1, 2, 3))
        return torch.stack([-bright, bright], 1)


@pytest.fixture(scope="module")
def black_and_white():
    labels = torch.arange(COUNT) % 2
    pixels = (255 * labels).to(torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8).contiguous()
    images = Images(pixels, labels)
    grey = InputSpec((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    return make("bw", ["b", "w"], images, images, inputs=grey, holdout=0.0, seed=0)


@pytest.fixture
def pretend(monkeypatch, black_and_white):
    """Return a ranking until sure on made-up leads of the own class, no image being augmented."""

    def ranked(leads: dict[str, torch.Tensor]):
        def batches(accumulator, stop):
            for _, index in accumulator.job.steps[accumulator.done : stop]:
                lead = leads[accumulator.name][index]
                labels = accumulator.job.dataset.train.labels[index]
                side = torch.where(labels == 1, lead, -lead)
                yield Batch(torch.stack([-side, side], 1) / 2, labels, index)

        def logits(job, images):
            return images if images.dim() == 2 else job.teacher(images)

        monkeypatch.setattr(Accumulator, "batches", batches)
        monkeypatch.setattr(Job, "logits", logits)
        return daqakd.rank(Oracle(), black_and_white, strategies=list(leads), until_sure=True)

    return ranked


def drawn(shapes: list[tuple[float, float]], seed: int) -> dict[str, torch.Tensor]:
    """Return one lead per image and strategy, independent of each other."""
    generator = torch.Generator().manual_seed(seed)
    pairs = zip(NAMES, shapes, strict=False)
    return {n: m + s * torch.randn(COUNT, generator=generator) for n, (m, s) in pairs}


def most(trials: int, share: float = 0.05) -> float:
    """Return how many of the trials may fail: the share, plus three binomial deviations."""
    return trials * share + 3 * math.sqrt(trials * share * (1 - share))


def outcomes(pretend, shapes, trials: int) -> Counter:
    """Return how often each name was claimed, None for not sure."""
    rankings = [pretend(drawn(shapes, seed)) for seed in range(trials)]
    return Counter(r.best if r.stop.sure else None for r in rankings)


EQUAL = [(shift_of(0.10, spread), spread) for spread in (1.0, 3.0, 8.0)]
CLOSE = [(shift_of(-0.06, 5.0), 5.0), (shift_of(-0.04, 3.0), 3.0)]
APART = [(shift_of(-0.10, 5.0), 5.0), (shift_of(0.20, 2.0), 2.0), (shift_of(0.40, 1.0), 1.0)]


@pytest.mark.parametrize("trials", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_equal_strategies_are_seldom_told_apart(pretend, trials):
    """Same score, other shapes: every claim is wrong."""
    claims = outcomes(pretend, EQUAL, trials)
    assert trials - claims[None] <= most(trials)


@pytest.mark.parametrize("trials", [40, pytest.param(600, marks=pytest.mark.slow)])
def test_a_close_second_is_seldom_taken_for_the_best(pretend, trials):
    assert outcomes(pretend, CLOSE, trials)[NAMES[1]] <= most(trials)


def test_identical_predictions_are_never_told_apart(pretend):
    for seed in range(5):
        lead = drawn(EQUAL[:1], seed)["identity"]
        ranking = pretend(dict.fromkeys(NAMES, lead))
        assert ranking.stop.sure is False
        assert len(ranking.tied) == 2
        assert "not sure" in ranking.table


def test_what_is_far_apart_stops_early_and_says_so(pretend):
    claims, images = Counter(), Counter()
    for seed in range(20):
        ranking = pretend(drawn(APART, seed))
        claims[ranking.best if ranking.stop.sure else None] += 1
        images[ranking.num_images] += 1
        assert not ranking.stop.sure or ranking.tied == []
    assert claims[NAMES[0]] >= 18
    assert sum(n for seen, n in images.items() if seen <= COUNT // 2) >= 15


def test_intervals_hold_the_truth_wherever_it_stopped(pretend):
    """Widened for the looks: all three strategies' intervals, 60 in all, miss 5 % or fewer."""
    missed = 0
    for seed in range(20):
        for row in pretend(drawn(APART, seed)).records():
            low, high = row["score_ci95"]
            missed += not low <= truth(*APART[NAMES.index(row["name"])]) <= high
    assert missed <= most(60)


@pytest.fixture(scope="module")
def taught():
    dataset = small_dataset(1200)
    torch.manual_seed(0)
    config = daqakd.TrainConfig(epochs=2, batch_size=32, lr=0.01, workers=0)
    return daqakd.teach(SmallNet(), dataset, config=config).model, dataset


STRATEGIES = ["minimal", "trivialaugment", "cutmix", "augmix"]


def plain(ranking) -> list[dict]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in ranking.records()]


def test_all_images_give_the_complete_ranking(taught):
    """Rounds take images in another order; the sums do not mind."""
    whole = daqakd.rank(*taught, strategies=["minimal", "augmix"])
    slow = daqakd.rank(*taught, strategies=["minimal", "augmix"], budget=1e6)
    assert {r.name: r.measures.pac for r in whole.results} == {
        r.name: r.measures.pac for r in slow.results
    }
    assert "after all 1200 images" in slow.table


def test_the_least_images_are_finished_whatever_the_budget(taught, tmp_path):
    ranking = daqakd.rank(*taught, strategies=STRATEGIES, budget=1e-9, run_dir=tmp_path)
    assert [r.num_images for r in ranking.results] == [60] * 4
    assert "over before the least of 60 images, which were finished" in ranking.table
    ranking.save(tmp_path)
    saved = json.loads((tmp_path / "ranking.json").read_text())
    assert "budget of 1e-09 s" in saved["stopped"]
    assert saved["sure"] is None
    assert saved["strategies"][0]["teacher_std"] is None
    more = daqakd.rank(*taught, strategies=STRATEGIES, budget=1e6, run_dir=tmp_path)
    assert plain(more) == plain(daqakd.rank(*taught, strategies=STRATEGIES, budget=1e6))


class Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("owner", "name", "places"),
    [
        (Accumulator, "add", (5, 40, 30, 20)),
        (Checkpoint, "save", (4, 41, 20, 33)),
        (Checkpoint, "save_rounds", (0, 1, 1)),
    ],
    ids=["batch", "between files", "look"],
)
def test_a_kill_changes_nothing(taught, tmp_path, monkeypatch, owner, name, places):
    """Every sum is saved at every step here, and the work is stopped at each kind of place."""
    monkeypatch.setattr(job, "BATCH", 50)
    monkeypatch.setattr(rounds, "SAVE_SECONDS", 0.0)
    strategies = [*STRATEGIES, "randaugment", "autoaugment-cifar"]
    options = {"strategies": strategies, "until_sure": True, "run_dir": tmp_path}
    whole = daqakd.rank(*taught, strategies=strategies, until_sure=True)
    assert len({r.num_images for r in whole.results}) == 3, "two rounds drop some"
    for after in places:
        calls = Counter()
        with monkeypatch.context() as patch:
            real = getattr(owner, name)

            def fatal(self, *given, real=real, calls=calls, after=after):
                calls["n"] += 1
                if calls["n"] > after:
                    raise Killed
                return real(self, *given)

            patch.setattr(owner, name, fatal)
            with pytest.raises(Killed):
                daqakd.rank(*taught, **options)
    again = daqakd.rank(*taught, **options)
    assert plain(again) == plain(whole)
    assert again.stop == whole.stop


def test_a_changed_question_begins_anew(taught, tmp_path, monkeypatch):
    daqakd.rank(*taught, strategies=["minimal", "augmix"], until_sure=True, run_dir=tmp_path)
    seen, add = [], Accumulator.add
    monkeypatch.setattr(Accumulator, "add", lambda self, b: seen.append(self.name) or add(self, b))
    daqakd.rank(*taught, strategies=["minimal", "augmix"], until_sure=True, run_dir=tmp_path)
    assert seen == []
    for change in (
        {"strategies": ["augmix", "minimal", "cutmix"]},
        {"cmi_weight": 2.0},
        {"semantics": "torchvision"},
        {"teacher_dtype": torch.bfloat16},
    ):
        seen.clear()
        options = {"strategies": ["minimal", "augmix"], "until_sure": True, **change}
        daqakd.rank(*taught, run_dir=tmp_path, **options)
        assert seen, change


def test_a_finished_look_is_not_repeated(taught, tmp_path, monkeypatch):
    """Later images must not change what an earlier look decided."""
    options = {"strategies": STRATEGIES, "until_sure": True, "run_dir": tmp_path}
    first = daqakd.rank(*taught, **options)
    monkeypatch.setattr(DropSeparated, "__call__", None)
    assert plain(daqakd.rank(*taught, **options)) == plain(first)


def test_another_engine_begins_anew(taught, tmp_path, monkeypatch):
    daqakd.rank(*taught, strategies=["minimal"], images=300, run_dir=tmp_path)
    seen, add = [], Accumulator.add
    monkeypatch.setattr(Accumulator, "add", lambda self, b: seen.append(self.name) or add(self, b))
    monkeypatch.setattr(job, "ENGINE", -1)
    daqakd.rank(*taught, strategies=["minimal"], images=300, run_dir=tmp_path)
    assert seen


def test_strategies_share_the_resident_images(taught, monkeypatch):
    places, make_stream = set(), Accumulator.__init__

    def watched(self, job, name):
        make_stream(self, job, name)
        places.add(self.stream.pixels.data_ptr())

    monkeypatch.setattr(Accumulator, "__init__", watched)
    daqakd.rank(*taught, strategies=STRATEGIES, images=300)
    assert len(places) == 1


def test_what_does_not_fit_into_memory_together_goes_one_after_another(taught, monkeypatch):
    strategies = ["cutmix", "minimal", "mixup", "augmix"]
    together = daqakd.rank(*taught, strategies=strategies)
    monkeypatch.setattr(ranker, "KEPT_VALUES", 2 * 1200 * 3)
    groups = []
    run = Rounds.run
    monkeypatch.setattr(Rounds, "run", lambda self, names: groups.append(names) or run(self, names))
    assert plain(daqakd.rank(*taught, strategies=strategies)) == plain(together)
    assert groups == [["cutmix", "minimal"], ["mixup", "augmix"]]


def test_a_bfloat16_teacher_is_close_and_its_sums_are_not_bfloat16(taught):
    exact = daqakd.rank(*taught, strategies=["minimal"])
    rough = daqakd.rank(*taught, strategies=["minimal"], teacher_dtype=torch.bfloat16)
    one, other = exact.results[0].measures, rough.results[0].measures
    assert one.pac != other.pac
    assert other.pac == pytest.approx(one.pac, rel=0.02)
    assert other.cmi == pytest.approx(one.cmi, rel=0.02)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"budget": 0.0}, "budget: expected more than 0 seconds"),
        ({"budget": -3.0}, "budget: expected more than 0 seconds"),
        ({"budget": math.nan}, "budget: expected a finite number or None, got nan"),
        ({"until_sure": True, "strategies": ["minimal"]}, "until_sure: needs two strategies"),
        ({"until_sure": True, "pac_limit": 1.0}, "until_sure.*pac_limit"),
        ({"until_sure": True, "images": 479}, "until_sure: needs 480 images or more"),
        (
            {"teacher_dtype": torch.float16},
            "expected 'float32' or 'bfloat16', got 'float16'",
        ),
        ({"semantics": "pill"}, "Did you mean 'pil'"),
        ({"passes": 0}, "passes: expected at least 1"),
    ],
    ids=["zero", "negative", "nan", "alone", "limit", "few", "dtype", "semantics", "passes"],
)
def test_wrong_arguments_say_what_to_do(taught, change, message):
    with pytest.raises(InputError, match=message):
        daqakd.rank(*taught, **change)


def test_rounds_double_from_the_least_to_all():
    sure = RankConfig(until_sure=True)
    doubled = [1600 * 2**k for k in range(5)]
    assert round_images(sure, 200, 1600, 50000) == [200, *doubled, 50000]
    assert round_images(sure, 200, 1600, 1600) == [200, 1600]
    assert planned_stop(sure, 7).looks == 6
    assert round_images(RankConfig(budget=1.0), 200, 1600, 50000) == [200, 50000]
    assert planned_stop(RankConfig(budget=1.0, until_sure=True), 7).looks == 7
