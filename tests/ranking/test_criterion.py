"""What decides a ranking: measures, the deviation baseline with its interval, a user's function."""

import json
from dataclasses import asdict

import pytest
import torch

import daqakd
from daqakd import InputError
from daqakd.augment import Stream, get_strategy
from daqakd.ranking import RankConfig
from daqakd.ranking.confidence import FOLDS, interval, unbiased

from ..helpers.small import Colours, small_dataset

STRATEGIES = ("minimal", "trivialaugment", "cutmix")


def ranked(**options):
    dataset = small_dataset(480, holdout=0.0)
    return daqakd.rank(Colours(), dataset, strategies=STRATEGIES, **options)


def wrong_way(measures):
    return measures.entropy


def text(measures):
    return "low"


def fails(measures):
    raise KeyError("entropy")


NOT_A_FUNCTION = 3
HERE = "tests.ranking.test_criterion"


def test_the_score_is_the_default():
    plain, named = ranked(), ranked(criterion="score")
    assert [asdict(r.measures) for r in plain.results] == [
        asdict(r.measures) for r in named.results
    ]
    assert "value" not in plain.records()[0]
    assert "score = PAC - CMI" in plain.table


@pytest.mark.parametrize(
    ("by", "of"),
    [
        ("negative_cmi", lambda m: -m.cmi),
        ("pac", lambda m: m.pac),
        ("cross_entropy", lambda m: m.cross_entropy),
        (f"{HERE}:wrong_way", lambda m: m.entropy),
    ],
)
def test_a_measure_decides(by, of, tmp_path):
    found = ranked(criterion=by)
    rows = found.records()
    for result, row in zip(found.results, rows, strict=True):
        whole, parts = of(result.measures), [of(m) for m in result.left_out]
        assert row["value"] == pytest.approx(unbiased(whole, parts))
        assert row["value_ci95"] == pytest.approx(list(interval(whole, parts)))
    values = [row["value"] for row in rows]
    assert values == sorted(values)
    found.save(tmp_path)
    kept = json.loads((tmp_path / "ranking.json").read_text())
    assert kept["criterion"]["by"] == by
    assert kept["best"] == found.best == rows[0]["name"]
    assert f"{by} without bias decides" in found.table
    header, first = (tmp_path / "ranking.csv").read_text().splitlines()[:2]
    cells = dict(zip(header.split(","), first.split(","), strict=True))
    assert float(cells["value"]) == values[0]
    assert float(cells["low_value"]) <= values[0] <= float(cells["high_value"])


def std_by_hand(name: str, passes: int, size: int, without: int | None = None) -> float:
    """The mean over classes of the deviation of groups' mean probabilities, image by image."""
    dataset, groups = small_dataset(480, holdout=0.0), []
    train = dataset.train
    given = (train.pixels, train.labels, get_strategy(name))
    stream = Stream(*given, inputs=dataset.inputs, seed=0, flip=dataset.flip)
    order = daqakd.augment.draws.permutation(0, 0, torch.arange(480))
    for number in range(passes):
        (batch,) = stream.batches(number, [order])
        rows = Colours()(batch.images).double().softmax(1)
        for i, group in enumerate(rows.split(size)):
            if i * FOLDS * size // 480 != without:
                groups.append(group.mean(0))
    return torch.stack(groups).std(0).mean().item()


def test_the_deviation_has_an_interval():
    found = ranked(criterion="std", passes=3)
    assert found.teacher_std_group == 48
    for result in found.results:
        whole = std_by_hand(result.name, 3, 48)
        assert result.teacher_std == pytest.approx(whole, rel=1e-5)
        parts = [std_by_hand(result.name, 3, 48, fold) for fold in range(FOLDS)]
        assert result.std_left_out == pytest.approx(parts, rel=1e-5)
        row = found.record(result)
        assert row["value_ci95"] == pytest.approx(list(interval(whole, parts)), rel=1e-3)
    values = [row["value"] for row in found.records()]
    assert values == sorted(values)


def test_the_deviation_takes_ten_passes():
    assert RankConfig(criterion="std").num_passes == 10
    assert RankConfig(criterion="std", passes=2).num_passes == 2
    assert RankConfig().num_passes == RankConfig(criterion="pac").num_passes == 1


def test_more_passes_make_the_interval_smaller():
    def width(passes):
        low, high = ranked(criterion="std", passes=passes).records()[0]["value_ci95"]
        return high - low

    assert width(16) < width(1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"criterion": "cmi"}, "unknown criterion 'cmi'. Known: cross_entropy, negative_cmi"),
        ({"criterion": f"{HERE}:missing"}, "cannot be imported"),
        ({"criterion": f"{HERE}:NOT_A_FUNCTION"}, "is not callable"),
        ({"criterion": f"{HERE}:text"}, "returned 'low' for Measures.* expected a number"),
        ({"criterion": f"{HERE}:fails"}, "fails on Measures.*KeyError"),
        ({"criterion": "pac", "pac_limit": 1.0}, "pac_limit: is a rule of its own"),
        ({"criterion": "std", "budget": 1.0}, "criterion: std compares groups"),
        ({"criterion": "std", "until_sure": True}, "criterion: std compares groups"),
    ],
)
def test_sentences(options, said):
    with pytest.raises(InputError, match=said):
        RankConfig(**options).check()


def test_until_sure_goes_by_a_measure():
    found = ranked(criterion="cross_entropy", until_sure=True)
    assert found.best == min(found.results, key=lambda r: r.measures.cross_entropy).name
