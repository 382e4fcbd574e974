"""Several runs against each other: only those of one data set, teacher, student and width."""

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

from ..quant import LayerSpec
from . import figures
from .html import picture, table
from .record import RunRecord

NOTE = (
    "score of the ranking against the student's test accuracy; ± is the standard deviation over the"
    " runs of a strategy, such as seeds; a bar is one deviation up and down"
)


class Setting(NamedTuple):
    """What runs must share to be compared."""

    data: str
    classes: str
    teacher: str
    student: str


def title_of(run: RunRecord) -> str:
    """Return data set, model and bits of a run, as far as its files tell."""
    data = run.facts.get("dataset") or _options(run).get("data", "")
    return ": ".join(filter(None, [str(data), _student(run)]))


def comparisons(runs: Sequence[RunRecord]) -> str:
    """Return a section for every setting of which there are two strategies or more."""
    known = {_teacher_path(run): run.teacher for run in runs if run.teacher is not None}
    groups: dict[Setting, list[RunRecord]] = {}
    for run in runs:
        if run.strategy is not None and "student_accuracy" in run.evaluation:
            groups.setdefault(_setting(run, known), []).append(run)
    scores = {setting[:3]: _scores(runs, setting, known) for setting in groups}
    found = [
        _section(setting, _entries(group, scores[setting[:3]]))
        for setting, group in groups.items()
        if len({run.strategy for run in group}) > 1
    ]
    return "".join(found)


def _options(run: RunRecord) -> dict[str, Any]:
    return next((run.config[k] for k in ("run", "train", "rank") if k in run.config), {})


def _student(run: RunRecord) -> str:
    told = run.facts.get("quantize")
    if told is None:
        return run.facts.get("model", "")
    widths = {k: v for k, v in json.loads(told).items() if k in LayerSpec.__dataclass_fields__}
    return f"{run.facts.get('model', '')} {LayerSpec(**widths).short}".strip()


def _teacher_path(run: RunRecord) -> str:
    return str(Path(_options(run).get("teacher") or run.folder).resolve())


def _teacher(run: RunRecord, known: dict[str, str]) -> str:
    """Return a hash of the weights where that is known, by the path where only others know it."""
    path = _teacher_path(run)
    return run.teacher or known.get(path, path)


def _setting(run: RunRecord, known: dict[str, str]) -> Setting:
    data = run.facts.get("dataset") or str(_options(run).get("data", ""))
    return Setting(data, run.facts.get("classes", ""), _teacher(run, known), _student(run))


def _scores(runs: Sequence[RunRecord], setting: Setting, known: dict[str, str]) -> dict[str, float]:
    """Return the scores by rankings with the setting's teacher."""
    found: dict[str, float] = {}
    for run in runs:
        if run.ranking is not None and _teacher(run, known) == setting.teacher:
            found |= {row["name"]: row["score"] for row in run.ranking["strategies"]}
    return found


def _entries(runs: Sequence[RunRecord], scores: dict[str, float]) -> list[figures.Point]:
    accuracies: dict[str, list[float]] = {}
    for run in runs:
        found = accuracies.setdefault(str(run.strategy), [])
        found.append(run.evaluation["student_accuracy"])
    entries = [figures.Point(name, scores.get(name), values) for name, values in accuracies.items()]
    return sorted(entries, key=lambda entry: -entry.mean)


def _section(setting: Setting, entries: Sequence[figures.Point]) -> str:
    head = f"{setting.data}: {setting.student}"
    cells = table(["strategy", "score", "test accuracy, %", "runs"], map(_row, entries), best=0)
    scored = [one for one in entries if one.score is not None]
    drawn = ""
    if len(scored) > 1:
        drawn = picture(figures.score_against_accuracy(scored, head), "score against test accuracy")
    note = f'<p class="note">{escape(NOTE)}</p>'
    return f"<h2>Score against accuracy: {escape(head)}</h2>{drawn}{cells}{note}"


def _row(entry: figures.Point) -> list[Any]:
    score = "-" if entry.score is None else f"{entry.score:.4f}"
    return [entry.strategy, score, entry.text, len(entry.accuracies)]
