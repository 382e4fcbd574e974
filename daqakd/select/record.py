"""``select.json``: what a selection was asked for, its plan, and what came of it so far."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._files import damaged, read_json, write_json
from .plan import Rung, describe, spent
from .race import Race

FILE = "select.json"
WIDTH = 60  # of the table
CELL = 8


@dataclass(frozen=True)
class Selection:
    """A selection as it was planned.

    Attributes:
        request: the options that the plan follows from.
        shortlist: what is tried, in the ranking's order, and why.
        rungs: how many strategies train for how many epochs.
        total_epochs: that there are to spend.
        epoch_seconds: that an epoch was measured to take, where the budget was one of time.
    """

    request: Mapping[str, Any]
    shortlist: Mapping[str, str]
    rungs: Sequence[Rung]
    total_epochs: int
    epoch_seconds: float | None = None

    def is_of(self, request: Mapping[str, Any]) -> bool:
        """Return whether it was planned for the same request."""
        plain: dict[str, Any] = json.loads(json.dumps(request))
        return plain == self.request

    @property
    def text(self) -> str:
        """The list and the plan, in two lines."""
        listed = [n if why == "ranked" else f"{n} ({why})" for n, why in self.shortlist.items()]
        plan = f"{describe(self.rungs)}, {spent(self.rungs)} of {self.total_epochs} together"
        return f"shortlist: {', '.join(listed)}\nrungs: {plan}"

    def write(self, path: Path, race: Race, seconds: float) -> None:
        """Write ``select.json``; there is a winner once all rungs are through."""
        done = len(race.results) == len(self.rungs)
        results = [{"epochs": r.epochs, "accuracies": dict(r.accuracies)} for r in race.results]
        record = {
            "winner": race.winner if done else None,
            "request": dict(self.request),
            "shortlist": dict(self.shortlist),
            "plan": [asdict(rung) for rung in self.rungs],
            "total_epochs": self.total_epochs,
            "epoch_seconds": self.epoch_seconds,
            "rungs": results,
            "epochs_spent": race.epochs,
            "seconds": seconds,
        }
        write_json(path, record)


def read_selection(path: Path) -> Selection | None:
    """Read the plan of a ``select.json``; None where there is no file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return None
    told = read_json(path)
    try:
        rungs = [Rung(**one) for one in told["plan"]]
        names = ("request", "shortlist", "total_epochs", "epoch_seconds")
        request, listed, total, seconds = (told[name] for name in names)
        return Selection(request, listed, rungs, total, seconds)
    except (KeyError, TypeError) as error:
        raise damaged(path, error) from error


def table(race: Race) -> str:
    """Return held-out accuracies in percent by strategy and rung, the winner first.

    Lines are of 60 columns where there are up to five rungs.
    """
    order: list[str] = []
    for result in reversed(race.results):
        order += [name for name in result.best_first if name not in order]
    width = WIDTH - 2 - CELL * len(race.results)
    heads = [f"{one.epochs} ep." for one in race.results]
    lines = [_line(" ", "held-out, %", heads, width)]
    for number, name in enumerate(order):
        values = [one.accuracies.get(name) for one in race.results]
        cells = ["-" if value is None else f"{100 * value:.2f}" for value in values]
        lines.append(_line(" " if number else "*", name, cells, width))
    return "\n".join(lines)


def _line(mark: str, name: str, cells: Sequence[str], width: int) -> str:
    short = name if len(name) <= width else f"{name[: width - 1]}~"
    return f"{mark} {short:{width}}{''.join(f'{cell:>{CELL}}' for cell in cells)}".rstrip()
