"""``train``: train the low-bit student with a given teacher beside it."""

from dataclasses import dataclass
from pathlib import Path

from .. import _console
from ..train.store import read_model_file
from ._dry_run import show, student
from ._job import begin
from ._student import StudentOptions, train_into


@dataclass(frozen=True, kw_only=True)
class Options(StudentOptions):
    """Options of ``train``."""

    teacher: Path
    """Teacher: a run directory, a .safetensors file, or a .pth file with a state_dict."""


def run(options: Options) -> None:
    """Train a student with a given teacher."""
    file = read_model_file(options.teacher)
    with begin(options, "train", file, options.holdout) as (dataset, teacher):
        if options.dry_run:
            return show(options, dataset, student(options, dataset, teacher, file))
        path = train_into(options, file, teacher, dataset)
    _console.say(f"student: {path}")
