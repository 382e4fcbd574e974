"""What commands of many runs share: a row's training and evaluation, one ranking for all."""

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path

from .._lock import Busy, working_in
from . import rank as rank_command
from . import train as train_command
from ._job import chosen_device
from ._student import StudentOptions
from .eval import eval_run

RANKING = "ranking"  # below the directory of all rows


def train_and_evaluate(options: train_command.Options) -> None:
    """Train a student as ``train`` would, and measure it on the test images."""
    train_command.run(options)
    model = options.model if options.student_model is None else options.student_model
    eval_run(options.out, False, model, chosen_device(options.device))


@contextmanager
def waiting(folder: Path) -> Iterator[None]:
    """Hold a directory, after whoever works there."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(working_in(folder, "out"))
                break
            except Busy:
                time.sleep(1)
        yield


def rank_once(row: StudentOptions, folder: Path, strategies: Sequence[str]) -> None:
    """Rank strategies as a row's teacher sees them, unless a worker has done so."""
    with waiting(folder):
        if not (folder / "ranking.json").exists():
            rank_command.run(_rank_options(row, folder, tuple(strategies)))


def _rank_options(
    row: StudentOptions, folder: Path, strategies: tuple[str, ...]
) -> rank_command.Options:
    shared = {f.name for f in fields(rank_command.Options)} & {f.name for f in fields(row)}
    values = {name: getattr(row, name) for name in shared}
    values["out"], values["ranking"] = folder, replace(row.ranking, strategies=strategies or None)
    return rank_command.Options(**values)
