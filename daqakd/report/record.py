"""The files of a run directory, read back for the report."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import InputError
from .._files import read_json
from ..train.checkpoint import read_progress
from ..train.epoch_log import read_records
from ..train.metrics import read_metrics
from ..train.options_file import read_options
from ..train.store import load_model, read_model_file


@dataclass(frozen=True)
class RunRecord:
    """The files of one run as Python values; None or empty where a file is missing.

    Args:
        folder: the run directory.
        config: ``config.toml``, by command.
        environment: ``env.json``.
        ranking: ``ranking.json``.
        evaluation: ``eval.json``.
        metrics: rows of the metrics files of ``teacher`` and ``student``.
        records: of the student's epochs, from ``metrics.jsonl``.
        student: the quantized model.
        facts: metadata of the student's file.
        teacher: a hash of its weights, where the student's checkpoint tells.
    """

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    ranking: dict[str, Any] | None
    evaluation: dict[str, Any]
    metrics: dict[str, list[dict[str, str]]]
    records: list[dict[str, Any]]
    student: nn.Module | None
    facts: dict[str, str]
    teacher: str | None = None

    @property
    def strategy(self) -> str | None:
        """The augmentation the student was trained with."""
        return self.facts.get("strategy")


def _json(path: Path) -> dict[str, Any] | None:
    return read_json(path) if path.exists() else None


def _student(folder: Path, name: str | None) -> tuple[nn.Module | None, dict[str, str]]:
    """Return the student and the metadata of its file."""
    if not (folder / "student.safetensors").exists():
        return None, {}
    file = read_model_file(folder, "student")
    return load_model(file, file.model or name, file.num_classes), file.facts


def _teacher(folder: Path) -> str | None:
    checkpoint = folder / "checkpoint" / "student.safetensors"
    return read_progress(checkpoint).get("teacher") if checkpoint.exists() else None


def read_run(folder: Path, model: str | None = None) -> RunRecord:
    """Read a run directory; ``model`` repeats the function that its student's file names.

    Raises:
        InputError: it is not one, or holds nothing to report yet.
    """
    config = read_options(folder / "config.toml")
    ranking = _json(folder / "ranking.json")
    student, facts = _student(folder, model)
    metrics = {
        "teacher": read_metrics(folder / "teacher_metrics.csv"),
        "student": read_metrics(folder / "metrics.csv"),
    }
    if ranking is None and not any(metrics.values()):
        raise InputError(f"{folder}: holds no ranking and no training yet; nothing to report")
    return RunRecord(
        folder=folder,
        config=config,
        environment=_json(folder / "env.json") or {},
        ranking=ranking,
        evaluation=_json(folder / "eval.json") or {},
        metrics=metrics,
        records=read_records(folder / "metrics.jsonl"),
        student=student,
        facts=facts,
        teacher=_teacher(folder),
    )
