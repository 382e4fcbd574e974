"""``make demo``: the main job on scikit-learn's digits, with its own checks."""

import json
import tempfile
from pathlib import Path

from . import _console
from .cli.main import main

CHANCE = 0.1
OPTIONS = (
    *("--teacher-epochs", "8"),
    *("--epochs", "6"),
    *("--batch-size", "64"),
    *("--lr", "2e-3"),
    *("--kd-weight", "2"),
)


def separates(ranking: dict[str, object]) -> bool:
    """Whether two strategies' 95 % intervals do not touch."""
    rows = ranking["strategies"]
    assert isinstance(rows, list)
    intervals = [row["score_ci95"] for row in rows]
    apart: bool = max(low for low, _ in intervals) > min(high for _, high in intervals)
    return apart


def demo(out: Path) -> int:
    """Rank, train and evaluate into ``out``; return 1 when the result is not what it should be."""
    code = main(["run", "digits", "--out", str(out), *OPTIONS])
    if code:
        return code
    student = json.loads((out / "eval.json").read_text())["student_accuracy"]
    if not separates(json.loads((out / "ranking.json").read_text())):
        _console.say("demo: the ranking separates no pair of strategies")
        return 1
    if student < 5 * CHANCE:
        _console.say(f"demo: the student's {student:.1%} is below five times chance")
        return 1
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        raise SystemExit(demo(Path(folder)))
