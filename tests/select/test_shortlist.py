"""What of a ranking is tried, and why."""

from daqakd.select import shortlist

from ..helpers.refusals import refused


def ranking(*rows, pac_limit=None):
    """Rows of (name, score, half of the interval)."""
    strategies = [
        {"name": n, "score": s, "score_ci95": [s - half, s + half], "pac": 0.1}
        for n, s, half in rows
    ]
    return {"strategies": strategies, "criterion": {"pac_limit": pac_limit}}


ROWS = [(name, i / 10, 0.01) for i, name in enumerate("abcdefgh")]


def test_the_best_are_tried():
    assert shortlist(ranking(*ROWS), 3) == {"a": "ranked", "b": "ranked", "c": "ranked"}
    assert [*shortlist(ranking(*ROWS[:2]), 3)] == ["a", "b"]


def test_near_ties_overlap_the_interval_of_the_last():
    """d reaches down to c's interval, e does not, f does again; b and c are apart."""
    wide = {"d": 0.09, "e": 0.05, "f": 0.295}
    rows = [(name, score, wide.get(name, 0.01)) for name, score, _ in ROWS]
    found = shortlist(ranking(*rows), 3)
    assert found == {**dict.fromkeys("abc", "ranked"), "d": "near tie", "f": "near tie"}


def test_near_ties_at_most_double_the_list():
    rows = [(name, score, 5.0) for name, score, _ in ROWS]
    assert [*shortlist(ranking(*rows), 2)] == [*"abcd"]


def test_others_are_tried_where_they_stand():
    found = shortlist(ranking(*ROWS), 2, also=("g", "a", "e"))
    assert [*found.items()] == [("a", "ranked"), ("b", "ranked"), ("e", "also"), ("g", "also")]


def test_what_decides_has_the_interval():
    """Another criterion than the score: its own value and interval."""
    told = ranking(*ROWS)
    for row in told["strategies"]:
        row |= {"value": row["score"], "value_ci95": [0.0, 1.0]}
    assert [*shortlist(told, 2)] == [*"abcd"]


def test_beyond_a_limit_nothing_is_tried_but_what_was_asked_for():
    rows = [(name, score, 5.0) for name, score, _ in ROWS]
    told = ranking(*rows, pac_limit=0.2)
    for name in (0, 2, 3):
        told["strategies"][name]["pac"] = 0.3
    assert [*shortlist(told, 2)] == ["b", "e"]
    assert shortlist(told, 2, also=("c",)) == {"b": "ranked", "c": "also", "e": "ranked"}
    told["criterion"]["pac_limit"] = 0.05
    assert shortlist(told, 2, also=("c",)) == {"c": "also"}
    refused(lambda: shortlist(told, 2), "pac_limit: no strategy is within 0.05 nats; expected 0.1")
