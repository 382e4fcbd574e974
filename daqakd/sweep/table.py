"""``sweep.csv``: one row per finished run, each with a hash of itself and all above it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from .._errors import naming
from .._files import read_json, remove_temporaries, write_text
from ..train.metrics import read_metrics, to_csv
from ..train.store import read_model_file
from .plan import Plan, Row

TABLE, LOCK = "sweep.csv", ".table-lock"
MEASURED = ("strategy", "student_accuracy", "teacher_accuracy", "heldout_accuracy")


@dataclass(frozen=True)
class Finished:
    """A finished run: its row, its directory, its results and the rows of its metrics.

    ``strategy`` is what the student was trained with, also where ``auto`` chose it.
    """

    row: Row
    folder: Path
    strategy: str
    student_accuracy: float
    teacher_accuracy: float | None
    metrics: list[dict[str, str]]

    @property
    def heldout_accuracy(self) -> float | None:
        """On held-out images, after the last epoch."""
        told = self.metrics[-1]["heldout_accuracy"] if self.metrics else ""
        return float(told) if told else None

    def record(self, varied: Sequence[str]) -> dict[str, Any]:
        """Return the cells of the table."""
        options = {key: self.row.varied.get(key) for key in varied}
        measured = {key: getattr(self, key) for key in MEASURED}
        return {"run": self.row.name, **options, **measured}


def is_finished(folder: Path) -> bool:
    """Return whether a run's student is there and was evaluated."""
    path = folder / "eval.json"
    return path.exists() and "student_accuracy" in read_json(path)


def finished_rows(plan: Plan, runs: Path) -> list[Finished]:
    """Return the finished runs below a folder, in the plan's order.

    Raises:
        InputError: a file of theirs is damaged.
    """
    return [_read(row, runs / row.name) for row in plan.rows if is_finished(runs / row.name)]


def _read(row: Row, folder: Path) -> Finished:
    told = read_json(folder / "eval.json")
    return Finished(
        row=row,
        folder=folder,
        strategy=read_model_file(folder, "student").facts.get("strategy", "-"),
        student_accuracy=told["student_accuracy"],
        teacher_accuracy=told.get("teacher_accuracy"),
        metrics=read_metrics(folder / "metrics.csv"),
    )


@contextmanager
def alone(out: Path) -> Iterator[None]:
    """Wait until no other worker writes the table or the page."""
    path = out / LOCK
    with naming(path), FileLock(path):
        remove_temporaries(out)
        yield


def write_table(plan: Plan, done: Sequence[Finished], out: Path) -> None:
    """Write ``sweep.csv``, where there is a finished run."""
    if done:
        records = [one.record(plan.varied) for one in done]
        write_text(out / TABLE, to_csv(records, first=("run",)))


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a ``sweep.csv``; errors as for :func:`daqakd.train.metrics.read_metrics`."""
    return read_metrics(path, first=("run",))
