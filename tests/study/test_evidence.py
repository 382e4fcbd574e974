"""Correlations with intervals and regrets, against definitions and simulated studies."""

import random

import numpy as np
import pytest

from daqakd._statistics import spearman
from daqakd.study import Arm, Evidence, Outcome, figures
from daqakd.study.bootstrap import difference_interval, rho_interval
from daqakd.study.evidence import MEASURES, evidence_of
from daqakd.study.tables import tables

NAMES = ("trivialaugment", "minimal", "a", "b", "c", "d")


def arm(name, score, *accuracies, **measures):
    known = dict.fromkeys(MEASURES, None) | {"score": score} | measures
    return Arm(name, known, dict(enumerate(accuracies)))


EVIDENCE = Evidence(
    [
        arm("a", -0.5, 0.90, 0.92, cmi=0.9, pac=0.40),
        arm("trivialaugment", -0.4, 0.93, 0.93, cmi=0.7, pac=0.30),
        arm("b", -0.3, 0.88, 0.86, cmi=0.5, pac=0.20),
        arm("c", -0.2, 0.87, 0.87, cmi=0.4, pac=0.20),
        arm("minimal", -0.1, 0.80, 0.84, cmi=0.1, pac=0.05),
        arm("d", 1.5, 0.30, 0.20, cmi=1.2, pac=2.7),
    ]
)


def test_a_correlation_is_spearmans_of_the_means():
    found = EVIDENCE.correlation("score")
    assert found.arms == 6
    assert found.rho == pytest.approx(spearman([1, 2, 3, 4, 5, 6], [5, 6, 4, 4, 2, 1]))
    assert found.interval[0] <= found.rho <= found.interval[1]
    assert EVIDENCE.informative.correlation("score").arms == 5
    assert EVIDENCE.correlation("entropy").rho is None
    few = Evidence(EVIDENCE.arms[:4]).correlation("score")
    assert few.rho is not None
    assert few.interval is None
    assert Evidence(EVIDENCE.arms[:2]).correlation("score").rho is None


def test_an_interval_is_that_of_a_plain_bootstrap():
    """One resample at a time, with other draws."""
    draw = random.Random(3)
    scores = [draw.random() for _ in range(9)]
    accuracies = [[s + draw.gauss(0, 0.3) for _ in range(3)] for s in scores]
    found = []
    for _ in range(4000):
        arms = [draw.randrange(9) for _ in range(9)]
        means = [np.mean(draw.choices(one, k=3)) for one in accuracies]
        rho = spearman([scores[i] for i in arms], [float(means[i]) for i in arms])
        found += [] if rho is None else [rho]
    low, high = np.percentile(found, [2.5, 97.5])
    got = rho_interval(scores, accuracies)
    assert got == rho_interval(scores, accuracies)
    # a draw of means is shared by the copies of an arm, in both
    assert got == pytest.approx((low, high), abs=0.04)


def test_intervals_without_noise_end_at_the_truth():
    assert rho_interval([1, 2, 3, 4, 5], [[i / 9] * 3 for i in range(5)]) == (1.0, 1.0)
    assert difference_interval([0.5, 0.5], [0.25, 0.25]) == (0.25, 0.25)
    low, high = difference_interval([0.5, 0.7], [0.25, 0.25])
    assert (low, high) == pytest.approx((0.25, 0.45))


def test_regrets():
    found = {one.rule: one for one in EVIDENCE.regrets()}
    assert {rule: one.arm for rule, one in found.items()} == {
        "score": "a",
        "cmi": "d",
        "pac": "minimal",
        "always trivialaugment": "trivialaugment",
        "always minimal": "minimal",
    }
    assert found["score"].regret == pytest.approx(0.93 - 0.91)
    assert found["cmi"].regret == pytest.approx(0.93 - 0.25)
    assert found["always trivialaugment"].interval == (0.0, 0.0)
    assert found["score"].interval == pytest.approx((0.01, 0.03))
    assert EVIDENCE.random_regret == pytest.approx(
        0.93 - (0.91 + 0.93 + 0.87 + 0.87 + 0.82 + 0.25) / 6
    )


def test_the_best_by_the_other_seeds():
    """Two arms that win a seed each by luck: whoever trusts one seed gets the other's bad one."""
    lucky = Evidence([arm("a", -0.5, 0.9, 0.5), arm("b", -0.4, 0.5, 0.9), arm("c", -0.3, 0.6, 0.6)])
    assert lucky.best.mean == pytest.approx(0.7)
    assert lucky.honest_best == pytest.approx(0.5)
    assert Evidence([arm("a", -0.5, 0.9), arm("b", -0.4, 0.5)]).honest_best is None


def test_the_seeds_deviation_is_pooled():
    pair = Evidence([arm("a", -0.5, 0.5, 0.7), arm("b", -0.4, 0.1, 0.1), arm("c", -0.3, 0.4)])
    assert pair.seed_deviation == pytest.approx((0.02 / 2) ** 0.5)
    assert Evidence([arm("a", -0.5, 0.5)]).seed_deviation is None


def test_rankings_and_students_are_joined():
    ranking = {"strategies": [{"name": "b", "score": -2.0}, {"name": "a", "score": -1.0}]}
    outcomes = [Outcome("a", 0, 0.5, ()), Outcome("a", 1, 0.7, ()), Outcome("x", 0, 0.1, ())]
    (only,) = evidence_of(ranking, outcomes).arms
    assert (only.name, only.accuracies, only.measures["score"]) == ("a", {0: 0.5, 1: 0.7}, -1.0)


def test_tables():
    arms, correlations, regrets = tables(EVIDENCE)
    assert [row[1] for row in arms.rows] == ["trivialaugment", "a", "b", "c", "minimal", "d"]
    assert arms.rows[1][-3:] == ["91.00 ± 1.41", "90.00", "92.00"]
    assert correlations.rows[0][:2] == ["score", "-1"]
    assert "the 5 arms" in correlations.header[3]
    assert next(r[:2] for r in regrets.rows if "min" in r[0]) == ["always minimal", "minimal"]
    assert regrets.rows[-1][0] == "best by the other seeds"
    text = arms.markdown()
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


@pytest.mark.parametrize("name", ["$\\x{$", "a_b^c", "$", "\\", "%"])
def test_figures_take_any_name(name):
    pytest.importorskip("matplotlib")
    found = Evidence([arm(name, -0.5, 0.5, 0.6), arm("b", -0.4, 0.6)])
    assert figures.scores(found, name)
    assert figures.learning_curves([Outcome(name, 0, 0.5, (0.1, 0.2))], name)
