"""``reproduce``: a table's rows are runs of its recipes, resumed; what is missing is marked."""

import re
from dataclasses import replace

import pytest

from daqakd import recipes
from daqakd._files import read_json
from daqakd.cli.main import main
from daqakd.recipes import Table
from daqakd.train.store import read_model_file

from ..helpers.killed import killed_at
from ..helpers.refusals import fails

SMALL = ("--model", "tests.helpers.small:small_net")
SHORT = ("--scale", "0.001", "--seeds", "0", "1")


@pytest.fixture(autouse=True)
def on_any_network(monkeypatch):
    """Recipes name layers of VGG, and taps of named models: the small network has others."""
    read = recipes.read

    def without(name):
        found = read(name)
        own = {k: v for k, v in found.options.items() if k != "exclude"}
        taps = {"taps": ["fc:input"]} if "kd" in own else {}
        return replace(found, options=own | taps)

    for place in ("daqakd.cli._recipe.read", "daqakd.cli.reproduce.read"):
        monkeypatch.setattr(place, without)


@pytest.fixture(scope="module")
def teacher(tree, tmp_path_factory):
    out = tmp_path_factory.mktemp("teacher")
    line = ["teach", str(tree), "--out", str(out), "--epochs", "6", "--batch-size", "16", *SMALL]
    assert main(line) == 0
    return out


@pytest.fixture
def few(monkeypatch):
    """Shorten the comparison to two recipes."""
    table = Table("kd-comparison", "Losses", recipes.read_table("kd-comparison").recipes[2:])
    table = replace(table, strategies=("minimal", "best"))
    monkeypatch.setattr("daqakd.cli.reproduce.read_table", lambda name: table)
    return table


def line(tree, teacher, out, *more):
    given = ("--data", str(tree), "--teacher", str(teacher), "--out", str(out))
    return ["reproduce", "kd-comparison", *given, *SMALL, *SHORT, *more]


def test_every_table_names_recipes():
    assert recipes.table_names() == (
        "cifar100",
        "kd-comparison",
        "tiny-mobilenetv2",
        "tiny-resnet18",
    )
    for name in recipes.table_names():
        table = recipes.read_table(name)
        assert table.title
        for one in table.recipes:
            recipes.read(one)


def test_rows_are_runs_and_a_killed_one_goes_on(tree, teacher, few, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    with killed_at(20):  # steps of the estimates among them
        main(line(tree, teacher, tmp_path))
    assert main(line(tree, teacher, tmp_path)) == 0
    said = capsys.readouterr().out
    assert re.search(r"kd-comparison: about [\d.]+ (seconds|minutes) on this machine", said)
    best = read_json(tmp_path / "rankings" / f"{SMALL[1]}-cutmix" / "ranking.json")["best"]
    text = (tmp_path / "table.md").read_text()
    assert "1 epochs, --scale 0.001 of the published schedule" in text
    for recipe in few.recipes:
        for shown in ("minimal", f"{best} (best-ranked)"):
            row = rf"\| {recipe} \| {re.escape(shown)} \| [\d.]+ ± [\d.]+ \| 2 of 2 \| - \|"
            assert re.search(row, text), text
            strategy = "best" if "best" in shown else "minimal"
            file = read_model_file(tmp_path / "runs" / f"{recipe},{strategy},1", "student")
            assert file.facts["strategy"] == (best if strategy == "best" else "minimal")
    assert (tmp_path / "sweep.html").exists()


def test_a_dry_run_says_how_long_and_leaves_nothing(tree, teacher, few, tmp_path, capsys):
    assert main(line(tree, teacher, tmp_path / "x", "--dry-run")) == 0
    said = capsys.readouterr().out
    assert re.search(r"-rkd, minimal: student: .*, 2 seeds", said)
    assert "on this machine" in said
    assert not (tmp_path / "x").exists()


def test_what_is_not_run_is_marked(tree, teacher, few, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("daqakd.cli.reproduce.run_rows", lambda sweep: None)
    assert main(line(tree, teacher, tmp_path)) == 0
    assert (tmp_path / "table.md").read_text().count("| missing | 0 of 2 | - |") == 4


def test_published_figures_stand_beside(tree, teacher, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("daqakd.cli.reproduce.run_rows", lambda sweep: None)
    table = Table("t", "One", ("cifar100-vgg13-w4a4-ewgs-sqakd",))
    monkeypatch.setattr("daqakd.cli.reproduce.read_table", lambda name: table)
    assert main(line(tree, teacher, tmp_path)) == 0
    text = (tmp_path / "table.md").read_text()
    assert "| minimal | missing | 0 of 2 | 74.67 (SQAKD, derived from DAQAKD's gain) |" in text


def test_sentences(tmp_path, capsys):
    fails(["reproduce", "kd"], "unknown table 'kd'", capsys)
    own = ["reproduce", "kd-comparison", "--out", str(tmp_path)]
    fails([*own, "--scale", "0"], "scale: expected more than 0", capsys)
    fails([*own, "--teacher", str(tmp_path / "none.pth")], "no such teacher", capsys)
