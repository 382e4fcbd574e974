"""The files of a study: ``study.csv``, ``study.md`` with two pictures, ``study.html``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from .._errors import InputError
from .._files import write_bytes, write_text
from ..report import html
from ..train.metrics import to_csv
from . import figures
from .evidence import MEASURES, Evidence
from .outcomes import Outcome
from .tables import Table, tables

CSV, MARKDOWN, PAGE = "study.csv", "study.md", "study.html"
SCORES, CURVES = "scores.png", "curves.png"
WHAT = {
    SCORES: "score against mean accuracy; a line joins an arm's lowest and highest seed",
    CURVES: "accuracy on augmented training images, means over seeds",
}


@dataclass(frozen=True)
class Setting:
    """What a study was made with, in words.

    Attributes:
        title: data set, models and bits.
        command: what repeats it.
        planned: how many students there are to be.
    """

    title: str
    command: str
    planned: int


def write_results(
    evidence: Evidence, outcomes: Sequence[Outcome], setting: Setting, out: Path
) -> None:
    """Write all that the finished students tell.

    Raises:
        InputError: matplotlib is missing.
    """
    write_text(out / CSV, to_csv(_records(evidence), first=("strategy",)))
    try:
        drawn = {
            SCORES: figures.scores(evidence, setting.title),
            CURVES: figures.learning_curves(outcomes, setting.title),
        }
    except ImportError as error:
        raise InputError("study needs matplotlib: pip install 'daqakd[report]'") from error
    for name, content in drawn.items():
        write_bytes(out / name, content)
    counts = f"{len(outcomes)} of {setting.planned} students are finished."
    found = tables(evidence)
    write_text(out / MARKDOWN, _markdown(setting, counts, found))
    write_text(out / PAGE, html.page(setting.title, _html(setting, counts, found, drawn)))


def _markdown(setting: Setting, counts: str, found: Sequence[Table]) -> str:
    parts = [f"# {setting.title}\n", f"{counts}\n", f"```\n{setting.command}\n```\n"]
    parts += [table.markdown() for table in found]
    parts += [f"![{WHAT[name]}]({name})\n" for name in WHAT]
    return "\n".join(parts)


def _html(setting: Setting, counts: str, found: Sequence[Table], drawn: Mapping[str, bytes]) -> str:
    body = f"<h1>{escape(setting.title)}</h1><p>{counts}</p><pre>{escape(setting.command)}</pre>"
    for one in found:
        body += f"<h2>{escape(one.heading)}</h2>{html.table(one.header, one.rows)}"
        body += f'<p class="note">{escape(one.note)}</p>'
    for name, what in WHAT.items():
        body += f'{html.picture(drawn[name], what)}<p class="note">{escape(what)}</p>'
    return body


def _records(evidence: Evidence) -> list[dict[str, object]]:
    """Return a row per finished student: the arm's measures and the test accuracy."""
    return [
        {"strategy": arm.name, "seed": seed, "test_accuracy": value}
        | {measure: arm.measures[measure] for measure in MEASURES}
        for arm in evidence.arms
        for seed, value in arm.accuracies.items()
    ]
