"""What commands of many runs share: a row's training, what it was made with, one ranking."""

import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import InputError
from .._lock import Busy, working_in
from ..data import Dataset
from ..ranking import RankConfig
from ..sweep import Failure
from ..train.environment import environment
from ..train.identity import digest_of
from . import rank as rank_command
from . import train as train_command
from ._job import chosen_device, options_to_keep
from ._student import StudentOptions
from .eval import eval_run

RANKING = "ranking"  # below the directory of all rows
MADE = ("date", "processor", "python", "packages")
# of a row's options: what rows differ in, where things lie, and what training does not read
NOT_COMPARED = {"strategy", "seed", "data", "teacher"} | {f.name for f in fields(RankConfig)}
MANY = 5  # rows that are named


def train_and_evaluate(options: train_command.Options) -> None:
    """Train a student as ``train`` would, and measure it on the test images."""
    train_command.run(options)
    model = options.model if options.student_model is None else options.student_model
    eval_run(options.out, False, model, chosen_device(options.device))


def identity_of(dataset: Dataset, teacher: nn.Module) -> dict[str, str]:
    """Return what tells images and teacher from others, wherever they lie."""
    images = f"{dataset.train.identity()} {dataset.test.identity()}"
    return {
        "images": hashlib.sha256(images.encode()).hexdigest()[:16],
        "teacher_weights": digest_of(teacher.state_dict())[:16],
    }


def origin_of(
    options: train_command.Options, identity: Mapping[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what rows with a row's options have in common, and the options' defaults."""
    values, defaults = options_to_keep(options)
    return {**identity, **_compared(values)}, _compared(defaults)


def _compared(values: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in values.items() if k not in NOT_COMPARED}
    plain: dict[str, Any] = json.loads(json.dumps(kept))
    return plain


def made_here() -> dict[str, Any]:
    """Return when, on what machine and with which versions a row is made."""
    made = environment()
    return {key: made[key] for key in MADE}


def failed(command: str, rows: str, failures: Sequence[Failure], count: int) -> InputError:
    """Build the error for rows that failed, of ``count``."""
    named = "; ".join(f"{f.row.name}: {f.reason}" for f in failures[:MANY])
    return InputError(
        f"{command}: {len(failures)} of {count} {rows} failed: {named}. Use other options for them;"
        " the rest is done"
    )


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
            rank_command.run(rank_options(row, folder, tuple(strategies)))


def rank_options(
    row: StudentOptions, folder: Path, strategies: tuple[str, ...]
) -> rank_command.Options:
    shared = {f.name for f in fields(rank_command.Options)} & {f.name for f in fields(row)}
    values = {name: getattr(row, name) for name in shared}
    values["out"], values["ranking"] = folder, replace(row.ranking, strategies=strategies or None)
    return rank_command.Options(**values)
