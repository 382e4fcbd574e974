"""The table of a race and the plan that a file keeps."""

from daqakd.select import Race, Rung, RungResult, plan, race
from daqakd.select.record import Selection, read_selection, table

LONG = "solarize@30+posterize@30+rotate@30"


def test_the_table_has_sixty_columns():
    values = {name: i / 20 for i, name in enumerate((LONG, *"abcdefghijklmnopq"))}
    rungs = plan(18, 1000)
    assert len(rungs) == 5
    lines = table(race([*values], rungs, lambda name, epochs: values[name])).splitlines()
    assert max(map(len, lines)) == len(lines[0]) == 60
    assert lines[0].split() == ["held-out,", "%"] + [
        word for rung in rungs for word in (str(rung.epochs), "ep.")
    ]
    assert lines[1].split() == ["*", "q"] + ["85.00"] * 5
    assert [line.split()[0] for line in lines[2:5]] == ["p", "o", "n"]
    assert lines[-1].split() == [f"{LONG[:17]}~", "0.00", "-", "-", "-", "-"]
    assert len(lines) == 19


def test_a_single_strategy_has_a_table():
    assert table(Race(["a"], [])).split() == ["held-out,", "%"]


def test_a_plan_is_read_back(tmp_path):
    request = {"total_epochs": None, "also": ("a",), "budget": 1.5}
    shortlist = {"b": "ranked", "a": "also"}
    made = Selection(request, shortlist, plan(2, 7), 7, 0.25)
    path = tmp_path / "select.json"
    assert read_selection(path) is None
    made.write(path, Race([*shortlist], []), 0.0)
    found = read_selection(path)
    assert found is not None
    assert found.is_of(request)
    assert not found.is_of(request | {"also": ()})
    assert [*found.shortlist.items()] == [*shortlist.items()]
    assert (found.rungs, found.total_epochs, found.epoch_seconds) == ([Rung(2, 3)], 7, 0.25)
    assert found.text == "shortlist: b, a (also)\nrungs: 2 x 3 epochs, 6 of 7 together"
    assert '"winner": null' in path.read_text()
    made.write(path, Race([*shortlist], [RungResult(3, {"b": 0.1, "a": 0.2})]), 4.0)
    assert '"winner": "a"' in path.read_text()
