"""Whole jobs beside what others do, and the page of the book."""

import argparse

import pytest
import torch

from benchmarks import bench_end_to_end as jobs
from benchmarks import book as command
from benchmarks import published
from benchmarks.published import Passes, published_score, score, transforms_of
from daqakd.bench.book import Book, read_book, write_book

P = [[0.80, 0.15, 0.05], [0.60, 0.30, 0.10], [0.10, 0.70, 0.20]]
P += [[0.30, 0.50, 0.20], [0.05, 0.25, 0.70], [0.20, 0.20, 0.60]]
Y = [0, 0, 1, 1, 2, 2]


class Told(Passes):
    """Passes whose predictions are known: batches of two."""

    seen: list[str] = []  # noqa: RUF012

    def predictions(self, strategy):
        self.seen.append(strategy)
        for start in range(0, 6, 2):
            rows = slice(start, start + 2)
            yield torch.tensor(P[rows]).log(), torch.tensor(Y[rows])


class Three:
    num_classes = 3


@pytest.fixture
def passes():
    Told.seen.clear()
    return Told(torch.nn.Linear(1, 1), Three(), "augmix")


def test_the_score_is_the_papers(passes):
    """The values are those of the formulas, worked out by hand in float64."""
    assert passes.cmi(passes.centroids()) == pytest.approx(0.028700615, abs=1e-6)
    assert score(passes) == pytest.approx(0.404060546, abs=1e-6)


def test_the_public_code_takes_22_passes(passes):
    assert published_score(passes) == pytest.approx(0.404060546, abs=1e-6)
    assert passes.seen.count("augmix") == 12
    assert passes.seen.count("minimal") == 10


def test_the_deviation_is_over_groups_of_steps(passes, monkeypatch):
    monkeypatch.setattr(published, "STEPS_OF_GROUP", 1)
    assert passes.deviation(epochs=1) == pytest.approx(0.277170154, abs=1e-6)


@pytest.mark.parametrize("strategy", jobs.STRATEGIES)
def test_every_strategy_has_a_transform(strategy):
    images = torch.randint(256, (3, 32, 32), dtype=torch.uint8)
    for transform in transforms_of(strategy):
        assert transform(images).shape == images.shape
    assert bool(transforms_of(strategy)) == (strategy != "minimal")


def test_rankings_that_disagree_are_not_timed(monkeypatch):
    ours = {"minimal": 0.1, "augmix": 0.2}
    theirs = {"minimal": 0.12, "augmix": float("nan")}
    setting = argparse.Namespace(
        network=lambda: None,
        data=lambda: argparse.Namespace(train=range(40)),
        strategies=tuple(ours),
        turns=2,
    )
    monkeypatch.setattr(jobs, "our_ranking", lambda *arguments: ours)
    monkeypatch.setattr(
        jobs, "their_ranking", lambda s, t, d, scorer: theirs if scorer is score else ours
    )
    rows = {one["provider"]: one for one in jobs.ranking(setting)}
    assert rows["daqakd"]["seconds"] > 0
    assert rows["published"]["images_per_second"] == 40 / rows["published"]["seconds"]
    assert rows["loop"]["seconds"] is None
    assert rows["loop"]["note"] == "augmix has the score nan, ours is 0.200"


def test_a_student_no_better_than_chance_is_not_timed(monkeypatch):
    data = argparse.Namespace(train=range(40), num_classes=10)
    setting = argparse.Namespace(data=lambda: data, strategies=("minimal",), turns=1)
    monkeypatch.setattr(jobs, "our_run", lambda setting: 0.9)
    monkeypatch.setattr(jobs, "their_run", lambda s, scorer: 0.8 if scorer is score else 0.1)
    rows = {one["provider"]: one for one in jobs.whole(setting)}
    assert rows["loop"]["accuracy"] == 0.8
    assert rows["loop"]["seconds"] is not None
    assert rows["published"]["note"] == "its student's accuracy is 0.10"


def some_rows():
    rows = [jobs.row("lsq", "tensor", name, 64, [t]) for name, t in (("eager", 4.0), ("ours", 1.0))]
    return [*rows, jobs.row("lsq", "tensor", "bad", 64, [1.0], "its values are wrong")]


def test_the_page_has_losing_and_refused_rows(tmp_path):
    made = {"command": "c", "turns": 1, "copy_bytes_per_second": 1e10, "rows": some_rows()}
    made |= {"skipped": {"nncf": "not installed"}}
    text = command.page(Book(tmp_path / "book.json", made), ["bars.png"], quick=True)
    assert "| 64 | float32 | tensor | eager | 4,000,000 | 4 | 0% | - |  |" in text
    assert "| 64 | float32 | tensor | bad | - | - | - | - | its values are wrong |" in text
    assert "no number is a result" in text
    assert "Skipped: nncf (not installed)." in text
    assert "![bars.png](bars.png)" in text


def test_the_book_is_one_folder(tmp_path, monkeypatch):
    record = {"turns": 1, "copy_bytes_per_second": 1e10}

    def bench(*arguments, keep):
        keep(record | {"rows": some_rows()})
        return record | {"rows": some_rows()}

    step = jobs.row("run", "x", "loop", 40, [2.0])
    monkeypatch.setattr(command, "bench", bench)
    monkeypatch.setattr(jobs, "measure", lambda *arguments: arguments[-1]([step]))
    monkeypatch.setattr("sys.argv", ["book", "--quick", "--out", str(tmp_path), "--device", "cpu"])
    command.main()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"book.json", "book.csv", "book.md", "bars.png"} <= names
    assert [one["op"] for one in read_book(tmp_path / "book.json").rows] == [*["lsq"] * 3, "run"]
    assert "## run" in (tmp_path / "book.md").read_text()


def test_files_of_whole_jobs_are_books(tmp_path):
    write_book(tmp_path / "x.json", {"rows": some_rows()})
    assert len(read_book(tmp_path / "x.json").timed) == 2
