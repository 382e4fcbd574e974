"""A study on disk: rows that carry over to another machine, and refusals of what is another's."""

import json
import re
import shutil

import pytest

from daqakd.cli.main import main

from ..helpers.refusals import fails
from ..sweep.conftest import MODEL

pytest.importorskip("matplotlib")
STRATEGIES = ("minimal", "cutmix", "trivialaugment")
RESULTS = ("study.csv", "scores.png", "curves.png")


def line_of(tree, teacher, out, *more, seeds=("0", "1")):
    line = ["study", str(tree), "--teacher", str(teacher), "--model", MODEL, "--epochs", "2"]
    line += ["--batch-size", "16", "--strategies", *STRATEGIES, "--seeds", *seeds]
    return [*line, "--out", str(out), *more]


@pytest.fixture(scope="module")
def studied(tree, teacher, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    assert main(line_of(tree, teacher, out)) == 0
    return out


def rows_of(out):
    return {path.name: path.read_bytes() for path in (out / "rows").iterdir()}


def test_every_row_is_the_single_run(studied, tree, teacher, tmp_path):
    assert len(rows_of(studied)) == 6
    row = json.loads((studied / "rows" / "seed=1,strategy=cutmix.json").read_text())
    line = ["train", str(tree), "--teacher", str(teacher), "--model", MODEL, "--epochs", "2"]
    line += ["--batch-size", "16", "--strategy", "cutmix", "--seed", "1", "--out", str(tmp_path)]
    assert main(line) == 0
    assert main(["eval", str(tmp_path), "--model", MODEL]) == 0
    told = json.loads((tmp_path / "eval.json").read_text())
    assert row["accuracy"] == told["student_accuracy"]
    assert len(row["training_accuracy"]) == 2
    assert row["origin"]["epochs"] == 2


def test_the_page_tells_it_all(studied):
    page, text = ((studied / name).read_text() for name in ("study.html", "study.md"))
    for heading in ("Arms", "Does it predict?", "Regret"):
        assert f"<h2>{heading}</h2>" in page
        assert f"## {heading}" in text
    assert "6 of 6 students are finished." in text
    assert "W2A2 lsq, 2 epochs on 120 images" in text
    assert not re.search(r'(src|href)="(?!data:)', page), "the page needs something outside it"
    assert (studied / "scores.png").stat().st_size > 5000


def test_rows_alone_continue_elsewhere(studied, tree, teacher, tmp_path, capsys):
    """Without run directories: five rows are carried over, the sixth is trained."""
    shutil.copytree(studied / "rows", tmp_path / "rows")
    gone = tmp_path / "rows" / "seed=0,strategy=minimal.json"
    accuracy = json.loads(gone.read_text())["accuracy"]
    gone.unlink()
    capsys.readouterr()
    assert main(line_of(tree, teacher, tmp_path)) == 0
    said = capsys.readouterr().out
    assert re.findall("^row (.*)$", said, re.M) == ["seed=0,strategy=minimal"]
    assert json.loads(gone.read_text())["accuracy"] == accuracy
    for name in RESULTS:
        assert (tmp_path / name).read_bytes() == (studied / name).read_bytes()


def test_more_seeds_and_fewer_strategies_keep_the_rows(studied, tree, teacher, tmp_path, capsys):
    shutil.copytree(studied / "rows", tmp_path / "rows")
    before = rows_of(tmp_path)
    line = line_of(tree, teacher, tmp_path, seeds=("0", "1", "2"))
    line.remove("trivialaugment")
    capsys.readouterr()
    assert main(line) == 0
    assert len(re.findall("^row ", capsys.readouterr().out, re.M)) == 2
    assert rows_of(tmp_path).items() >= before.items()
    assert "6 of 6 students" in (tmp_path / "study.md").read_text()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--epochs", "3"], r"minimal.json: is a row of another study: epochs \(2 there, 3 here\)"),
        (["-w", "4"], r"another study: weight_bits \(2 there, 4 here\)"),
        (["--seeds", "0", "0"], r"seeds: expected different integers, got \[0, 0\]"),
        (["--strategies", "minimal"], "strategies: expected two or more"),
        (["--strategies", "minimal", "nope"], "unknown strategy 'nope'"),
    ],
)
def test_what_is_wrong_is_said(studied, tree, teacher, capsys, more, message):
    before = rows_of(studied)
    fails(line_of(tree, teacher, studied, *more), message, capsys)
    assert rows_of(studied) == before


def test_rows_of_other_images_are_refused(studied, tree, teacher, tmp_path, capsys):
    shutil.copytree(studied / "rows", tmp_path / "out" / "rows")
    other = tmp_path / "tree"
    shutil.copytree(tree, other)
    next((other / "train").rglob("*.png")).unlink()
    fails(line_of(other, teacher, tmp_path / "out"), r"another study: images \(", capsys)


def test_a_damaged_row_is_named(studied, tree, teacher, tmp_path, capsys):
    shutil.copytree(studied / "rows", tmp_path / "rows")
    path = tmp_path / "rows" / "seed=0,strategy=minimal.json"
    path.write_text(path.read_text().replace("0", "1", 1))
    fails(line_of(tree, teacher, tmp_path), r"strategy=minimal.json: damaged", capsys)


def test_a_dry_run_keeps_nothing(tree, teacher, tmp_path, capsys):
    assert main(line_of(tree, teacher, tmp_path / "out", "--dry-run")) == 0
    said = capsys.readouterr().out
    assert "6 students, each a student: " in said
    assert not (tmp_path / "out").exists()


def test_another_ranking_is_made_anew(studied, tree, teacher, tmp_path):
    shutil.copytree(studied / "rows", tmp_path / "rows")
    assert main(line_of(tree, teacher, tmp_path, "--images", "60")) == 0
    assert main(line_of(tree, teacher, tmp_path)) == 0
    assert len([*(tmp_path / "ranking").iterdir()]) == 2
    assert (tmp_path / "study.csv").read_bytes() == (studied / "study.csv").read_bytes()
