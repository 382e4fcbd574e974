"""The result of a ranking: order, ties, table, files, picture."""

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .._files import write_bytes, write_json, write_text
from .confidence import interval, tied
from .state import Measures

FIELDS = (
    "name",
    "score",
    "score_ci95",
    "cmi",
    "pac",
    "cross_entropy",
    "accuracy",
    "entropy",
    "teacher_std",
    "images",
    "seconds",
)


@dataclass(frozen=True)
class StrategyResult:
    """One strategy's measures, over everything and with each fold left out."""

    name: str
    measures: Measures
    left_out: list[Measures]
    mixed: bool
    teacher_std: float
    images: int
    seconds: float

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "StrategyResult":
        """Undo :meth:`to_json`."""
        left_out = [Measures(**m) for m in record["left_out"]]
        return cls(**{**record, "measures": Measures(**record["measures"]), "left_out": left_out})

    def to_json(self) -> dict[str, Any]:
        """Return plain dictionaries and lists."""
        return asdict(self)


@dataclass(frozen=True)
class Criterion:
    """What is minimised: ``pac_weight * PAC - cmi_weight * CMI``, or -CMI within a PAC limit."""

    cmi_weight: float = 1.0
    pac_weight: float = 1.0
    pac_limit: float | None = None

    def score(self, m: Measures) -> float:
        """Return the score that tables show."""
        return self.pac_weight * m.pac - self.cmi_weight * m.cmi

    def value(self, m: Measures) -> float:
        """Return what decides among the strategies within the limit."""
        return self.score(m) if self.pac_limit is None else -m.cmi

    def allows(self, m: Measures) -> bool:
        """Whether the strategy may win."""
        return self.pac_limit is None or m.pac <= self.pac_limit


@dataclass(frozen=True)
class Ranking:
    """Strategies from best to worst.

    Attributes:
        results: one per strategy, best first; strategies beyond ``pac_limit`` come last.
        criterion: weights and limit.
        classes: number of classes.
        images: images per strategy and pass.
        teacher: facts about the teacher.
        seconds: of all strategies together.
        teacher_std_group: images per group of the ``teacher_std`` baseline.
    """

    results: Sequence[StrategyResult]
    criterion: Criterion
    classes: int
    images: int
    teacher: dict[str, Any]
    seconds: float
    teacher_std_group: int

    @property
    def best(self) -> str:
        """The winner's name."""
        return self.results[0].name

    @property
    def tied(self) -> list[str]:
        """Names that the 95 % interval of the paired difference does not tell from the best."""
        value, first = self.criterion.value, self.results[0]
        reference = [value(m) for m in first.left_out]
        return [
            r.name
            for r in self.results[1:]
            if self.criterion.allows(r.measures)
            and tied(
                value(r.measures),
                value(first.measures),
                [value(m) for m in r.left_out],
                reference,
            )
        ]

    def record(self, result: StrategyResult) -> dict[str, Any]:
        """Return one strategy's row, as in ``ranking.json``."""
        m, score = result.measures, self.criterion.score
        row = {
            "name": result.name,
            "score": score(m),
            "score_ci95": list(interval(score(m), [score(x) for x in result.left_out])),
            **asdict(m),
            "accuracy": None if result.mixed else m.accuracy,
            "teacher_std": result.teacher_std,
            "images": result.images,
            "seconds": result.seconds,
        }
        return {name: row[name] for name in FIELDS}

    def records(self) -> list[dict[str, Any]]:
        """Return all rows, best first."""
        return [self.record(r) for r in self.results]

    @property
    def table(self) -> str:
        """The ranking as text; ``=`` marks strategies tied with the best."""
        heads = ["", "strategy", "score", "95 % interval", "CMI", "PAC", "CE", "acc", "seconds"]
        rows = [self._cells(i, row) for i, row in enumerate(self.records(), 1)]
        widths = [max(len(r[c]) for r in [heads, *rows]) for c in range(len(heads))]
        lines = [_line(r, widths) for r in [heads, *rows]]
        limit = self.criterion.pac_limit
        rule = "score = PAC - CMI in nats, lower is better"
        if limit is not None:
            rule = f"highest CMI with PAC <= {limit:g} wins; x: beyond the limit"
        return "\n".join([*lines, f"{rule}; '=' is tied with the best; {self.images} images"])

    def _cells(self, place: int, row: dict[str, Any]) -> list[str]:
        result = self.results[place - 1]
        mark = "=" if row["name"] in self.tied else str(place)
        low, high = row["score_ci95"]
        return [
            mark if self.criterion.allows(result.measures) else "x",
            row["name"],
            f"{row['score']:.4f}",
            f"[{low:.4f}, {high:.4f}]",
            f"{row['cmi']:.4f}",
            f"{row['pac']:.4f}",
            f"{row['cross_entropy']:.4f}",
            "-" if row["accuracy"] is None else f"{row['accuracy']:.4f}",
            f"{row['seconds']:.1f}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``ranking.json``."""
        return {
            "best": self.best,
            "tied": self.tied,
            "images": self.images,
            "classes": self.classes,
            "teacher": self.teacher,
            "seconds": self.seconds,
            "criterion": asdict(self.criterion),
            "teacher_std_group": self.teacher_std_group,
            "strategies": self.records(),
        }

    def save(self, directory: str | Path) -> None:
        """Write ``ranking.json``, ``ranking.csv`` and, where matplotlib is, ``ranking.png``."""
        folder = Path(directory)
        write_json(folder / "ranking.json", self.to_json())
        text = io.StringIO()
        writer = csv.DictWriter(text, [f for f in FIELDS if f != "score_ci95"] + ["low", "high"])
        writer.writeheader()
        for row in self.records():
            low, high = row.pop("score_ci95")
            writer.writerow({**row, "low": low, "high": high})
        write_text(folder / "ranking.csv", text.getvalue())
        with suppress(ImportError):
            self.plot(folder / "ranking.png")

    def plot(self, path: str | Path) -> None:
        """Draw scores with intervals, and CMI against PAC, as a PNG.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from .picture import draw

        write_bytes(Path(path), draw(self.to_json()))


def _line(cells: list[str], widths: list[int]) -> str:
    text = [
        c.ljust(w) if i < 2 else c.rjust(w)
        for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(text).rstrip()
