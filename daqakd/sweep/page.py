"""``sweep.html``: the table as the paper prints it, tests over seeds, score against accuracy."""

from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path

from .._errors import InputError
from .._files import read_json, write_text
from .._statistics import spearman, spearman_interval
from ..report.figures import Point, score_against_accuracy
from ..report.html import Best, page, picture, table
from . import figures
from .plan import Plan, Row
from .summary import Cell, Summary, summarise
from .table import Finished

PAGE = "sweep.html"
TABLE_NOTE = (
    "student's test accuracy in percent, mean ± standard deviation over seeds; bold: the highest"
    " mean of a column; =: not told from it by a paired t test over seeds at 5 %"
)
SCORE_NOTE = (
    "score of the ranking against mean accuracy; Spearman's rho, where -1 is a perfect ranking,"
    " with its 95 % interval by Fisher's z (Bonett and Wright 2000)"
)


def write_page(
    plan: Plan, done: Sequence[Finished], out: Path, ranking: Callable[[Row], Path | None]
) -> Path | None:
    """Write the page, where there is a finished run; ``ranking`` names a row's ``ranking.json``.

    Raises:
        InputError: matplotlib is missing.
    """
    if not done:
        return None
    found = summarise(done)
    counts = f"{len(done)} of {len(plan.rows)} rows are finished"
    try:
        body = (
            f"<h1>{escape(out.resolve().name)}</h1><p>{counts}</p>{_accuracies(found)}"
            f"{_tests(found)}{_scores(found, ranking)}{_curves(found)}{_rows(plan, done)}"
        )
    except ImportError as error:
        raise InputError("sweep needs matplotlib: pip install 'daqakd[report]'") from error
    write_text(out / PAGE, page(out.resolve().name, body))
    return out / PAGE


def cell_text(cell: Cell) -> str:
    """Return a mean and its deviation in percent."""
    spread = cell.deviation
    return f"{100 * cell.mean:.2f}" + ("" if spread is None else f" ± {100 * spread:.2f}")


def accuracy_rows(found: Summary) -> list[list[str]]:
    """Return the rows of the paper's table: a strategy, then its accuracy in every column."""
    rows: list[list[str]] = []
    for strategy in found.strategies:
        rows.append([strategy])
        for column, cells in found.columns.items():
            text = cell_text(cells[strategy]) if strategy in cells else "-"
            tie = " =" if strategy in cells and strategy in found.tied(column) else ""
            best = strategy == found.best(column)
            rows[-1].append(Best(text) if best else text + tie)
    return rows


def _accuracies(found: Summary) -> str:
    cells = table(["strategy", *found.columns], accuracy_rows(found))
    return f'<h2>Accuracy</h2>{cells}<p class="note">{escape(TABLE_NOTE)}</p>'


def _tests(found: Summary) -> str:
    """Return the best of every column against all others, seed by seed."""
    rows = []
    for column, cells in found.columns.items():
        best = found.best(column)
        for name, cell in cells.items():
            pairs, p = cells[best].against(cell)
            if name != best and p is not None:
                behind = f"{100 * (cells[best].mean - cell.mean):.2f}"
                rows.append([column, best, name, behind, f"{p:.3g}", pairs])
    header = ["column", "best", "against", "points ahead", "p, paired t", "seeds"]
    return f"<h2>Tests over seeds</h2>{table(header, rows)}" if rows else ""


def _points(cells: dict[str, Cell], ranking: Callable[[Row], Path | None]) -> list[Point]:
    """Return the strategies that were ranked."""
    found: dict[str, Point] = {}
    for cell in cells.values():
        first = cell.runs[0]
        path = ranking(first.row) or first.folder / "ranking.json"
        if path.exists():
            scores = {one["name"]: one["score"] for one in read_json(path)["strategies"]}
            if first.strategy in scores:
                name = first.strategy
                found[name] = Point(name, scores[name], [*cell.accuracies.values()])
    return list(found.values())


def rank_correlation(points: Sequence[Point]) -> str:
    """Return rho of score and mean accuracy with its interval, in words."""
    known = [(one.score, one.mean) for one in points if one.score is not None]
    rho = spearman([score for score, _ in known], [right for _, right in known])
    if rho is None:
        return "rho is not defined: all scores or all accuracies are the same"
    bounds = spearman_interval(rho, len(points))
    shown = "too few pairs for an interval" if len(points) < 5 else "no interval at its limit"
    if bounds is not None:
        shown = f"[{bounds[0]:.2f}, {bounds[1]:.2f}]"
    return f"rho = {rho:.2f}, {shown}, {len(points)} strategies"


def _scores(found: Summary, ranking: Callable[[Row], Path | None]) -> str:
    parts = []
    for column, cells in found.columns.items():
        points = _points(cells, ranking)
        if len(points) > 1:
            drawn = picture(score_against_accuracy(points, column), "score against accuracy")
            parts.append(f"<h3>{escape(column)}: {escape(rank_correlation(points))}</h3>{drawn}")
    if not parts:
        return ""
    note = f'<p class="note">{escape(SCORE_NOTE)}</p>'
    return f"<h2>Score against accuracy</h2>{note}{''.join(parts)}"


def _curves(found: Summary) -> str:
    drawn = figures.learning_curves(found)
    if drawn is None:
        return ""
    shown = picture(drawn, "held-out accuracy over epochs")
    return f"<h2>Learning curves</h2>{shown}<p class='note'>means over seeds</p>"


def _rows(plan: Plan, done: Sequence[Finished]) -> str:
    records = [run.record(plan.varied) for run in done]
    cells = [[_cell(name, value) for name, value in record.items()] for record in records]
    return f"<h2>Rows</h2>{table(list(records[0]), cells)}"


def _cell(name: str, value: object) -> object:
    """Return what the page shows of a value; ``sweep.csv`` has all its digits."""
    if value is None:
        return "-"
    return f"{value:.2%}" if name.endswith("_accuracy") and isinstance(value, float) else value
