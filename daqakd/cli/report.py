"""``report``: one self-contained HTML page about finished runs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from .. import _console
from ..report import report
from ._options import OptionalName, OptionalPath


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``report``."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    """Run directories; several of one teacher also give score against accuracy."""
    out: OptionalPath = None
    """The page; default: report.html in the first run."""
    model: OptionalName = None
    """package.module:function of runs whose model is one's own: code that a file names is imported
    only where it is repeated here."""


def run(options: Options) -> None:
    """Write the report of finished runs."""
    _console.say(f"report: {report(options.runs, options.out, options.model)}")
