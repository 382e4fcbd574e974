"""What a ranking shows: estimates without bias, in the middle of their intervals."""

import csv
import json

import pytest
import torch

import daqakd
from daqakd import CMIState, InputError
from daqakd.ranking.anytime import DropSeparated
from daqakd.ranking.confidence import interval, unbiased
from daqakd.ranking.criterion import Criterion
from daqakd.ranking.halving import KeepHalf
from daqakd.ranking.ranker import ordered
from daqakd.ranking.result import Stop, StrategyResult
from daqakd.ranking.rounds import Outcome
from daqakd.ranking.state import Measures

from .test_rank import taught

__all__ = ["taught"]  # a fixture


def test_estimates_lie_in_the_middle_of_their_intervals(taught, tmp_path):
    teacher, dataset = taught
    names = ["minimal", "trivialaugment", "autoaugment-imagenet", "cutmix"]
    ranking = daqakd.rank(teacher, dataset, strategies=names, images=60, cmi_weight=0.5)
    ranking.save(tmp_path)
    rows = json.loads((tmp_path / "ranking.json").read_text())["strategies"]
    columns = list(csv.DictReader((tmp_path / "ranking.csv").read_text().splitlines()))
    for row, column, result in zip(rows, columns, ranking.results, strict=True):
        low, high = row["score_ci95"]
        assert row["score"] == pytest.approx((low + high) / 2)
        assert row["score"] == pytest.approx(row["pac"] - 0.5 * row["cmi"])
        assert row["cmi_plugin"] == result.measures.cmi
        assert row["pac_plugin"] == result.measures.pac
        assert row["score_plugin"] == pytest.approx(row["pac_plugin"] - 0.5 * row["cmi_plugin"])
        assert row["cmi"] > row["cmi_plugin"]
        assert row["pac"] < row["pac_plugin"]
        assert (float(column["low"]), float(column["high"])) == (low, high)
        for key in ("score", "score_plugin", "cmi", "cmi_plugin", "pac", "pac_plugin"):
            assert float(column[key]) == row[key]
        line = next(one for one in ranking.table.splitlines() if f" {row['name']} " in one)
        assert f"{row['score']:.4f}" in line
        assert f"[{low:.4f}, {high:.4f}]" in line


def made_result(name: str, cmi: float, pac: float, left_out: list[tuple[float, float]]):
    def measures(cmi: float, pac: float) -> Measures:
        return Measures(cmi, pac, 0.0, 0.0, 1.0)

    return StrategyResult(
        name, measures(cmi, pac), [measures(*m) for m in left_out], False, None, 100, 0.0
    )


def test_order_limit_and_drops_follow_the_estimates():
    """Two strategies whose order turns when their bias is removed."""
    steady = made_result("steady", 0.50, 0.2, [(0.5 + (-1) ** i * 1e-3, 0.2) for i in range(10)])
    biased = made_result("biased", 0.49, 0.19, [(0.48 + (-1) ** i * 1e-3, 0.2) for i in range(10)])
    assert biased.estimates.cmi == pytest.approx(0.58)
    assert biased.estimates.pac == pytest.approx(0.10)
    live = Outcome({"steady": steady, "biased": biased}, ["steady", "biased"], [], False)
    for limit, best in ((None, "biased"), (0.3, "biased"), (0.15, "biased")):
        assert ordered(live, Criterion(1.0, 1.0, limit))[0].name == best
    with pytest.raises(InputError, match=r"the least PAC is 0\.0999|the least PAC is 0\.1"):
        ordered(live, Criterion(1.0, 1.0, 0.05))
    decide = DropSeparated(Criterion(1.0, 1.0, None), Stop(), 10)
    assert decide(1, [steady, biased]) == ["steady"]
    assert KeepHalf(Criterion(1.0, 1.0, None), 3)(0, [steady, biased]) == ["steady"]


def test_the_jackknife_removes_most_of_the_bias():
    """Means over 40 subsets of 300 images, against the score of all 20,000.

    It is larger than half an interval at times: the plug-in value then lies outside.
    """
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(20000) % 10
    logits = 2.0 * torch.randn(20000, 10, generator=generator)
    logits[torch.arange(20000), labels] += 4.0
    full = CMIState(10)
    full.update(logits, labels)
    plugin, estimate, outside = 0.0, 0.0, 0
    for _ in range(40):
        chosen = torch.randperm(20000, generator=generator)[:300]
        part = CMIState(10, folds=10)
        part.update(logits[chosen], labels[chosen], torch.arange(300) % 10)
        left_out = [m.pac - m.cmi for m in part.leave_one_out()]
        plugin += part.score() / 40
        estimate += unbiased(part.score(), left_out) / 40
        low, high = interval(part.score(), left_out)
        outside += not low <= part.score() <= high
    assert outside > 0
    assert abs(estimate - full.score()) < 0.2 * abs(plugin - full.score())
