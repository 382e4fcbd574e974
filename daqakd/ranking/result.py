"""The result of a ranking: order, ties, table, files, picture."""

import csv
import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .._files import write_bytes, write_json, write_text
from .._lock import working_in
from ..augment import InputSpec
from .confidence import T_975, interval, two_sided, unbiased
from .criterion import SCORE, Criterion
from .state import Measures

ERROR = 0.05
FIELDS = (
    "name",
    "score",
    "score_ci95",
    "cmi",
    "pac",
    "score_plugin",
    "cmi_plugin",
    "pac_plugin",
    "cross_entropy",
    "accuracy",
    "entropy",
    "teacher_std",
    "images",
    "seconds",
)


@dataclass(frozen=True)
class StrategyResult:
    """One strategy's measures by the paper's formulas, over everything and without each fold."""

    name: str
    measures: Measures
    left_out: list[Measures]
    mixed: bool
    teacher_std: float | None  # None: too few images for its groups
    num_images: int
    seconds: float
    std_left_out: list[float] = field(default_factory=list)  # likewise without each fold

    @property
    def estimates(self) -> Measures:
        """The measures that are shown and compared: CMI and PAC without their bias.

        The jackknife removes it, and their intervals lie around these values; means have no bias.
        """
        whole, parts = self.measures, self.left_out
        return replace(
            whole,
            cmi=unbiased(whole.cmi, [m.cmi for m in parts]),
            pac=unbiased(whole.pac, [m.pac for m in parts]),
        )


@dataclass(frozen=True)
class Stop:
    """Why a ranking ended, and how often its data may have been looked at before.

    With ``looks`` planned looks, ``score_ci95`` is an interval of confidence ``1 - 0.05 / looks``,
    and differences from the best are judged at ``1 - 0.05 / (looks * pairs)`` (Bonferroni): all of
    them hold together with 95 %, at whichever look the ranking stopped.
    """

    reason: str = ""
    sure: bool | None = None  # None: it was not asked
    looks: int = 1
    pairs: int = 1
    dropped: tuple[str, ...] = ()  # on the way, separated from the best

    @property
    def t(self) -> float:
        """Student's t of a strategy's own interval."""
        return T_975 if self.looks == 1 else two_sided(ERROR / self.looks)

    @property
    def pair_t(self) -> float:
        """Student's t of a difference from the best."""
        count = self.looks * self.pairs
        return T_975 if count == 1 else two_sided(ERROR / count)


@dataclass(frozen=True)
class Ranking:
    """Strategies from best to worst.

    Attributes:
        results: one per strategy, best first; strategies beyond ``pac_limit`` come last.
        criterion: weights and limit.
        num_classes: number of classes.
        num_images: images per strategy and pass; a strategy dropped on the way saw fewer.
        teacher: facts about the teacher.
        seconds: of all strategies together.
        teacher_std_group: images per group of the ``teacher_std`` baseline.
        inputs: how pixels became the teacher's inputs.
        stop: why it ended.
    """

    results: Sequence[StrategyResult]
    criterion: Criterion
    num_classes: int
    num_images: int
    teacher: dict[str, Any]
    seconds: float
    teacher_std_group: int
    inputs: InputSpec
    stop: Stop

    @property
    def best(self) -> str:
        """The winner's name."""
        return self.results[0].name

    @property
    def tied(self) -> list[str]:
        """Names that the interval of the paired difference does not tell from the best."""
        first, t = self.results[0], self.stop.pair_t
        return [
            r.name
            for r in self.results[1:]
            if self.criterion.allows(r.estimates)
            and r.name not in self.stop.dropped
            and _holds_zero(self.criterion.lead(first, r, t))
        ]

    def record(self, result: StrategyResult) -> dict[str, Any]:
        """Return one strategy's row, as in ``ranking.json``.

        ``score``, ``cmi`` and ``pac`` are estimates without bias, ``score_ci95`` is around the
        score; ``score_plugin``, ``cmi_plugin`` and ``pac_plugin`` are the paper's formulas.
        """
        m, score = result.measures, self.criterion.score
        row = {
            "name": result.name,
            "score": score(result.estimates),
            "score_ci95": list(
                interval(score(m), [score(x) for x in result.left_out], self.stop.t)
            ),
            **asdict(result.estimates),
            "score_plugin": score(m),
            "cmi_plugin": m.cmi,
            "pac_plugin": m.pac,
            "accuracy": None if result.mixed else m.accuracy,
            "teacher_std": result.teacher_std,
            "images": result.num_images,
            "seconds": result.seconds,
        }
        return {name: row[name] for name in FIELDS} | self._decided(result)

    def _decided(self, result: StrategyResult) -> dict[str, Any]:
        """Return the columns of a criterion that is not the score."""
        if self.criterion.by == SCORE:
            return {}
        whole, parts = self.criterion.whole(result), self.criterion.left_out(result)
        found = list(interval(whole, parts, self.stop.t))
        return {"value": self.criterion.value(result), "value_ci95": found}

    def records(self) -> list[dict[str, Any]]:
        """Return all rows, best first."""
        return [self.record(r) for r in self.results]

    @property
    def table(self) -> str:
        """The ranking as text; ``=`` marks strategies tied with the best."""
        heads = ["", "strategy", self._decides, "95 % interval", "CMI", "PAC", "CE", "acc"]
        heads += ["images", "seconds"]
        rows = [self._cells(i, row) for i, row in enumerate(self.records(), 1)]
        widths = [max(len(r[c]) for r in [heads, *rows]) for c in range(len(heads))]
        lines = [_line(r, widths) for r in [heads, *rows]]
        limit = self.criterion.pac_limit
        rule = "score = PAC - CMI in nats without bias, lower is better"
        if self.criterion.by != SCORE:
            rule = f"{self.criterion.by} without bias decides, lower is better"
        elif limit is not None:
            rule = f"highest CMI with PAC <= {limit:g} wins; x: beyond the limit"
        lines.append(f"{rule}; '=' is tied with the best; {self.num_images} images")
        return "\n".join([*lines, self.stop.reason] if self.stop.reason else lines)

    @property
    def _decides(self) -> str:
        return self.criterion.by.rpartition(":")[2]

    def _cells(self, rank: int, row: dict[str, Any]) -> list[str]:
        result = self.results[rank - 1]
        mark = "=" if row["name"] in self.tied else str(rank)
        value, (low, high) = shown(row)
        return [
            mark if self.criterion.allows(result.estimates) else "x",
            row["name"],
            f"{value:.4f}",
            f"[{low:.4f}, {high:.4f}]",
            f"{row['cmi']:.4f}",
            f"{row['pac']:.4f}",
            f"{row['cross_entropy']:.4f}",
            "-" if row["accuracy"] is None else f"{row['accuracy']:.4f}",
            str(row["images"]),
            f"{row['seconds']:.1f}",
        ]

    def to_json(self) -> dict[str, Any]:
        """Return the content of ``ranking.json``."""
        return {
            "best": self.best,
            "tied": self.tied,
            "images": self.num_images,
            "classes": self.num_classes,
            "teacher": self.teacher,
            "seconds": self.seconds,
            "criterion": asdict(self.criterion),
            "teacher_std_group": self.teacher_std_group,
            "pipeline": asdict(self.inputs)["pipeline"],
            "semantics": self.inputs.semantics,
            "sure": self.stop.sure,
            "stopped": self.stop.reason or "all images seen",
            "looks": self.stop.looks,
            "dropped": list(self.stop.dropped),
            "strategies": self.records(),
        }

    def save(self, directory: str | Path) -> None:
        """Write ``ranking.json``, ``ranking.csv`` and, where matplotlib is, ``ranking.png``."""
        folder = Path(directory)
        with working_in(folder, "directory"):
            write_json(folder / "ranking.json", self.to_json())
            write_text(folder / "ranking.csv", self._csv())
            with suppress(ImportError):
                self.plot(folder / "ranking.png")

    def _csv(self) -> str:
        text = io.StringIO()
        kinds = [SCORE] if self.criterion.by == SCORE else [SCORE, "value"]
        bounds = [
            f"{side}{'' if k == SCORE else '_value'}" for k in kinds for side in ("low", "high")
        ]
        names = [f for f in FIELDS if f != "score_ci95"] + kinds[1:]
        writer = csv.DictWriter(text, names + bounds)
        writer.writeheader()
        for row in self.records():
            ends = [end for kind in kinds for end in row.pop(f"{kind}_ci95")]
            writer.writerow(row | dict(zip(bounds, ends, strict=True)))
        return text.getvalue()

    def plot(self, path: str | Path) -> None:
        """Draw scores with intervals, and CMI against PAC, as a PNG.

        Raises:
            ImportError: matplotlib is not installed.
        """
        from .picture import draw

        write_bytes(Path(path), draw(self.to_json()))


def shown(row: dict[str, Any]) -> tuple[float, list[float]]:
    """Return what decides of a row of ``ranking.json``, and its interval."""
    kind = "value" if "value" in row else SCORE
    return row[kind], row[f"{kind}_ci95"]


def _holds_zero(interval: tuple[float, float]) -> bool:
    return interval[0] <= 0 <= interval[1]


def _line(cells: list[str], widths: list[int]) -> str:
    text = [
        c.ljust(w) if i < 2 else c.rjust(w)
        for i, (c, w) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(text).rstrip()
