"""Runs of a sweep by strategy and by what else differs, over seeds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .._statistics import deviation, mean, paired_p
from .table import Finished

ERROR = 0.05
BITS = ("weight_bits", "act_bits")


@dataclass(frozen=True)
class Cell:
    """The runs of one strategy in one column; seeds apart they are the same."""

    runs: Sequence[Finished]

    @property
    def accuracies(self) -> dict[Any, float]:
        """Test accuracy by seed."""
        return {run.row.varied.get("seed"): run.student_accuracy for run in self.runs}

    @property
    def mean(self) -> float:
        """Mean accuracy over seeds."""
        return mean(list(self.accuracies.values()))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None for one."""
        return deviation(list(self.accuracies.values()))

    def against(self, other: "Cell") -> tuple[int, float | None]:
        """Return how many seeds both have, and the p of the paired difference."""
        mine, others = self.accuracies, other.accuracies
        seeds = [seed for seed in mine if seed in others]
        return len(seeds), paired_p([mine[s] for s in seeds], [others[s] for s in seeds])


@dataclass(frozen=True)
class Summary:
    """Strategies down, everything else that differs across: the paper's table."""

    columns: dict[str, dict[str, Cell]]  # by column and strategy

    @property
    def strategies(self) -> list[str]:
        """The names of the rows."""
        return list(dict.fromkeys(name for cells in self.columns.values() for name in cells))

    def best(self, column: str) -> str:
        """Return a column's strategy of the highest mean."""
        cells = self.columns[column]
        return max(cells, key=lambda name: cells[name].mean)

    def tied(self, column: str) -> list[str]:
        """Return the strategies that the seeds do not tell from the best of a column."""
        cells, best = self.columns[column], self.best(column)
        values = {name: cells[best].against(cell)[1] for name, cell in cells.items()}
        return [n for n, p in values.items() if n != best and (p is None or p >= ERROR)]


def summarise(done: Iterable[Finished]) -> Summary:
    """Group finished runs."""
    groups: dict[str, dict[str, list[Finished]]] = {}
    for run in done:
        strategy = str(run.row.varied.get("strategy", run.strategy))
        groups.setdefault(column_of(run.row.varied), {}).setdefault(strategy, []).append(run)
    return Summary({c: {s: Cell(runs) for s, runs in g.items()} for c, g in groups.items()})


def column_of(varied: Mapping[str, Any]) -> str:
    """Return the name of a row's column: all that varies but strategy and seed."""
    bits = [f"{key[0].upper()}{varied[key]}" for key in BITS if key in varied]
    others = [
        str(value) if isinstance(value, str) else f"{key} {value}"
        for key, value in varied.items()
        if key not in (*BITS, "strategy", "seed")
    ]
    return " ".join(["".join(bits), *others]).strip() or "accuracy"
