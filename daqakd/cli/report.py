"""``report``: one self-contained HTML page about finished runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .. import _console
from ..report import report
from ._options import OptionalPath


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``report``."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories; several of one teacher also give score against accuracy."""
    out: OptionalPath = None
    """The page; default: report.html in the first run."""


def run(options: Options) -> None:
    """Write the report of finished runs."""
    _console.say(f"report: {report(options.runs, options.out)}")
