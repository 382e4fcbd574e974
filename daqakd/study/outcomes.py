"""``rows/``: one file for every finished student, so that several machines can share the work.

A row knows the images, the teacher and the options it was made with: rows of other ones are
refused. Its run directory is not needed again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._errors import InputError
from .._files import damaged, read_json, write_json
from ..sweep import Row

ROWS = "rows"  # below the directory of a study or a selection
SHOWN = 5  # options that differ


@dataclass(frozen=True)
class Outcome:
    """A finished student.

    Attributes:
        strategy: it was trained with.
        seed: of its order of images, draws and initial weights.
        accuracy: of the last checkpoint, on the test images in a study, on held-out ones in a
            selection; from 0 to 1.
        training: accuracy on the augmented training images, by epoch.
        seconds: that the process which finished it took, where that is told.
    """

    strategy: str
    seed: int
    accuracy: float
    training: tuple[float, ...]
    seconds: float | None = None


@dataclass(frozen=True)
class Outcomes:
    """The rows of a directory that are made alike.

    Attributes:
        out: the directory.
        origin: what all these rows are made with.
        defaults: of what rows of older versions do not tell.
        command: whose rows they are, as errors call it.
    """

    out: Path
    origin: Mapping[str, Any]
    defaults: Mapping[str, Any]
    command: str = "study"

    def path(self, row: Row) -> Path:
        """Return a row's file."""
        return self.out / ROWS / f"{row.name}.json"

    def has(self, row: Row) -> bool:
        """Return whether a row is finished.

        Raises:
            InputError: the file is damaged, or was made with something else.
        """
        return self.path(row).exists() and self.read(row) is not None

    def read(self, row: Row) -> Outcome:
        """Read a finished row; errors as for :meth:`has`."""
        path = self.path(row)
        told = read_json(path)
        self._check(path, told.get("origin"))
        try:
            return Outcome(
                row.varied["strategy"],
                row.varied["seed"],
                float(told["accuracy"]),
                tuple(map(float, told["training_accuracy"])),
                None if (seconds := told.get("seconds")) is None else float(seconds),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise damaged(path, error) from error

    def _check(self, path: Path, told: Any) -> None:
        there, here = {**self.defaults, **(told if isinstance(told, dict) else {})}, self.origin
        differs = [key for key in here if there.get(key) != here[key]]
        if differs:
            what = ", ".join(f"{k} ({there.get(k)} there, {here[k]} here)" for k in differs[:SHOWN])
            raise InputError(
                f"{path}: is a row of another {self.command}: {what}. Use another --out, or the"
                " same data, teacher and options"
            )

    def write(self, outcome: Outcome, row: Row, made: Mapping[str, Any]) -> None:
        """Keep a finished row; ``made`` says on what machine and with which versions."""
        record = {
            "strategy": outcome.strategy,
            "seed": outcome.seed,
            "accuracy": outcome.accuracy,
            "training_accuracy": [*outcome.training],
            **({} if outcome.seconds is None else {"seconds": outcome.seconds}),
            "origin": dict(self.origin),
            "made": dict(made),
        }
        write_json(self.path(row), record)
