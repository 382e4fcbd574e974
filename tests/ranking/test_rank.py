"""CMIState against the method's vectors; intervals; the ranker end to end."""

import json

import pytest
import torch

import daqakd
from daqakd import CMIState, InputError
from daqakd.ranking.accumulator import Accumulator
from daqakd.ranking.confidence import (
    T_975,
    difference,
    interval,
    jackknife_error,
    two_sided,
    upper_tail,
)

from ..helpers import cases
from ..helpers.small import SmallNet, small_dataset

P = torch.tensor(
    [
        [0.80, 0.15, 0.05],
        [0.60, 0.30, 0.10],
        [0.10, 0.70, 0.20],
        [0.30, 0.50, 0.20],
        [0.05, 0.25, 0.70],
        [0.20, 0.20, 0.60],
    ],
    dtype=torch.float64,
)
HARD = torch.tensor([0, 0, 1, 1, 2, 2])
SOFT = torch.tensor(
    [[0.7, 0.3, 0], [1, 0, 0], [0, 0.6, 0.4], [0, 0.9, 0.1], [0.2, 0, 0.8], [0, 0.5, 0.5]],
    dtype=torch.float64,
)
PAIRS = (
    torch.tensor([0, 0, 1, 1, 0, 1]),
    torch.tensor([1, 1, 2, 2, 2, 2]),
    torch.tensor([0.7, 1, 0.6, 0.9, 0.2, 0.5], dtype=torch.float64),
)


def state_of(labels, **options) -> CMIState:
    state = CMIState(3, **options)
    state.update(P.log(), labels)
    return state


@pytest.mark.parametrize(
    ("labels", "options", "cmi", "pac", "score"),
    [
        (HARD, {}, 0.028700615, 0.432761161, 0.404060546),
        (SOFT, {}, 0.109590054, 0.643826436, 0.534236381),
        (PAIRS, {}, 0.109590054, 0.643826436, 0.534236381),
        (SOFT, {"legacy_transposed": True}, 0.121703352, 0.643826436, 0.522123081),
    ],
    ids=["hard", "soft", "pairs", "transposed"],
)
@pytest.mark.parametrize("backend", ["reference", "native"])
def test_method_vectors(labels, options, cmi, pac, score, backend):
    cases.require("cmi", backend, torch.float64)
    with daqakd.use_backend(backend):
        check_method_vectors(state_of(labels, **options), labels, cmi, pac, score)


def check_method_vectors(state, labels, cmi, pac, score):
    tolerance = 1e-8 if labels is PAIRS else 1e-9
    assert state.cmi() == pytest.approx(cmi, abs=tolerance)
    assert state.pac() == pytest.approx(pac, abs=tolerance)
    assert state.score() == pytest.approx(score, abs=5e-9)  # the vectors' own rounding
    weighted = state.score(cmi_weight=2.0, pac_weight=3.0)
    assert weighted == pytest.approx(3 * pac - 2 * cmi, abs=1e-7)


def test_order_batches_and_merging_do_not_change_a_bit():
    z, y = torch.randn(200, 7) * 5, torch.randint(7, (200,))
    fold = torch.arange(200) % 4
    whole = CMIState(7, folds=4)
    whole.update(z, y, fold)
    parts = [CMIState(7, folds=4) for _ in range(3)]
    for number, index in enumerate(torch.randperm(200).split(17)):
        parts[number % 3].update(z[index], y[index], fold[index])
    for part in parts[1:]:
        parts[0].merge(part)
    assert torch.equal(parts[0].sums, whole.sums)
    assert parts[0].leave_one_out() == whole.leave_one_out()


def test_soft_one_hot_equals_hard():
    soft = state_of(torch.eye(3, dtype=torch.float64)[HARD])
    assert soft.cmi() == pytest.approx(state_of(HARD).cmi(), rel=1e-12)
    assert soft.pac() == state_of(HARD).pac()


@pytest.mark.parametrize("labels", ["hard", "soft"])
def test_leaving_a_fold_out_is_computing_without_it(labels):
    z, y, fold = torch.randn(90, 5), torch.randint(5, (90,)), torch.arange(90) % 3
    target = y if labels == "hard" else torch.rand(90, 5).softmax(1)
    state = CMIState(5, folds=3)
    state.update(z, target, fold)
    for left_out, measured in enumerate(state.leave_one_out()):
        alone = CMIState(5)
        alone.update(z[fold != left_out], target[fold != left_out])
        assert measured.cmi == pytest.approx(alone.cmi(), rel=1e-12)
        assert measured.pac == pytest.approx(alone.pac(), rel=1e-12)


def test_empty_and_single_image_classes_add_nothing():
    z = torch.tensor([[3.0, 0.0, 1.0], [2.0, 0.5, 1.0], [0.0, 1.0, 0.0]])
    state = CMIState(3)
    state.update(z, torch.tensor([0, 0, 1]))
    two = CMIState(3)
    two.update(z[:2], torch.tensor([0, 0]))
    assert state.cmi() == pytest.approx(two.cmi() * 2 / 3)


def test_state_dict_restores_soft_and_hard(tmp_path):
    for labels in (HARD, SOFT):
        state, fresh = state_of(labels), CMIState(3)
        fresh.load_state_dict(state.state_dict())
        assert fresh.measures() == state.measures()


def test_nan_and_nothing_are_errors():
    with pytest.raises(InputError, match="is empty"):
        CMIState(3).cmi()
    state = CMIState(3)
    state.update(torch.full((2, 3), float("nan")), torch.tensor([0, 1]))
    with pytest.raises(InputError, match="2 rows of NaN"):
        state.cmi()


def test_jackknife_of_a_mean_is_its_standard_error():
    x = torch.randn(50, dtype=torch.float64)
    left_out = [(x.sum() - v).item() / 49 for v in x]
    assert jackknife_error(left_out) == pytest.approx((x.std() / 50**0.5).item())
    low, high = interval(x.mean().item(), left_out)
    assert (low + high) / 2 == pytest.approx(x.mean().item())


def test_ties_are_judged_on_paired_differences():
    noise = [0.5 * (-1) ** i for i in range(10)]
    same = difference(1.0, 0.9, [1 + v for v in noise], [0.9 + v for v in noise])
    opposite = difference(1.0, 0.9, [1 + v for v in noise], [0.9 - v for v in noise])
    assert same == pytest.approx((0.1, 0.1))
    assert opposite[0] < 0 < opposite[1]


def test_student_t():
    """Quantiles of 9 degrees of freedom from printed tables, and T_975."""
    for tail, t in ((0.1, 1.383), (0.025, 2.262), (0.01, 2.821), (0.001, 4.297), (0.0005, 4.781)):
        assert two_sided(2 * tail) == pytest.approx(t, abs=5e-4)
        assert upper_tail(two_sided(2 * tail)) == pytest.approx(tail, rel=1e-9)
    assert two_sided(0.05) == pytest.approx(T_975, abs=1e-9)


def test_interval_of_a_subset_covers_the_full_score():
    """20 % subsets over 20 seeds: the 95 % interval holds the full-data score 17 times or more."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(20000) % 10
    logits = 2.0 * torch.randn(20000, 10, generator=generator)
    logits[torch.arange(20000), labels] += 4.0
    full = CMIState(10)
    full.update(logits, labels)
    covered = 0
    for _ in range(20):
        chosen = torch.randperm(20000, generator=generator)[:4000]
        part = CMIState(10, folds=10)
        part.update(logits[chosen], labels[chosen], torch.arange(4000) % 10)
        low, high = interval(part.score(), [m.pac - m.cmi for m in part.leave_one_out()])
        covered += low <= full.score() <= high
    assert covered >= 17


@pytest.fixture(scope="module")
def taught():
    dataset = small_dataset(600)
    torch.manual_seed(0)
    model = SmallNet()
    config = daqakd.TrainConfig(epochs=3, batch_size=32, lr=0.01, workers=0)
    return daqakd.teach(model, dataset, config=config).model, dataset


def test_ranking_files_and_order(taught, tmp_path):
    teacher, dataset = taught
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    names = ["minimal", "trivialaugment", "cutmix"]
    ranking = daqakd.rank(teacher, dataset, strategies=names, run_dir=tmp_path, seed=1)
    ranking.save(tmp_path)
    saved = json.loads((tmp_path / "ranking.json").read_text())
    rows = {row["name"]: row for row in saved["strategies"]}
    scores = [row["score"] for row in saved["strategies"]]
    assert scores == sorted(scores)
    assert saved["best"] == saved["strategies"][0]["name"]
    assert rows["cutmix"]["accuracy"] is None
    assert rows["minimal"]["accuracy"] > 0.8
    for row in rows.values():
        assert row["score"] == pytest.approx(row["pac"] - row["cmi"])
        assert row["score_ci95"][0] < row["score_ci95"][1]
        assert row["images"] == saved["images"] == 600
    assert (tmp_path / "ranking.csv").read_text().count("\n") == 4
    assert (tmp_path / "ranking.png").read_bytes().startswith(b"\x89PNG")
    assert all(torch.equal(v, before[k]) for k, v in teacher.state_dict().items())
    assert all(name in ranking.table for name in names)


def watch_tallies(monkeypatch) -> list[str]:
    """Return a list that gets the strategy of every batch from now on."""
    seen: list[str] = []
    add = Accumulator.add

    def watched(self, batch):
        seen.append(self.name)
        return add(self, batch)

    monkeypatch.setattr(Accumulator, "add", watched)
    return seen


def test_finished_strategies_are_not_redone(taught, tmp_path, monkeypatch):
    teacher, dataset = taught
    first = daqakd.rank(teacher, dataset, strategies=["minimal"], run_dir=tmp_path)
    measured = watch_tallies(monkeypatch)
    again = daqakd.rank(teacher, dataset, strategies=["minimal", "cutmix"], run_dir=tmp_path)
    assert set(measured) == {"cutmix"}
    assert first.results[0] in again.results
    daqakd.rank(teacher, dataset, strategies=["minimal"], run_dir=tmp_path, seed=9)
    assert set(measured) == {"cutmix", "minimal"}, "another seed must not reuse the result"


def test_constrained_form_takes_the_highest_cmi_within_the_limit(taught, tmp_path):
    teacher, dataset = taught
    names = ["minimal", "trivialaugment", "cutmix"]
    free = daqakd.rank(teacher, dataset, strategies=names, run_dir=tmp_path)
    by_pac = sorted(free.results, key=lambda r: r.measures.pac)
    limit = (by_pac[1].measures.pac + by_pac[2].measures.pac) / 2
    bound = daqakd.rank(teacher, dataset, strategies=names, run_dir=tmp_path, pac_limit=limit)
    assert bound.best == max(by_pac[:2], key=lambda r: r.measures.cmi).name
    assert bound.results[-1].name == by_pac[2].name
    with pytest.raises(InputError, match="no strategy is within"):
        daqakd.rank(teacher, dataset, strategies=names, run_dir=tmp_path, pac_limit=0.0)


def test_subset_is_stratified(taught):
    teacher, dataset = taught
    ranking = daqakd.rank(teacher, dataset, strategies=["minimal"], images=90)
    assert ranking.num_images == 90


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": 59}, "need at least 60"),
        ({"images": 6000}, "has 600"),
        ({"strategies": ["minimall"]}, "Did you mean 'minimal'"),
        ({"strategies": []}, "at least one"),
        ({"seed": 2**64}, "seed: expected an integer from"),
    ],
    ids=["few", "many", "name", "none", "seed"],
)
def test_wrong_arguments_say_what_to_do(taught, change, message):
    teacher, dataset = taught
    with pytest.raises(InputError, match=message):
        daqakd.rank(teacher, dataset, **change)


def test_a_teacher_at_chance_or_of_other_classes_is_an_error(taught):
    _, dataset = taught
    torch.manual_seed(0)
    with pytest.raises(InputError, match=r"chance is 33\.3%.*--mean"):
        daqakd.rank(SmallNet(), dataset, strategies=["minimal"])
    with pytest.raises(InputError, match="has 3 classes"):
        daqakd.rank(SmallNet(5), dataset, strategies=["minimal"])
