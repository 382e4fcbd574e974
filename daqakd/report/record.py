"""What a run directory holds, read back for the report."""

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .._errors import InputError
from ..train.options_file import read_options
from ..train.store import load_model, read_model_file


@dataclass(frozen=True)
class RunRecord:
    """One run: its files as Python values; None or empty where a file is missing."""

    folder: Path
    config: dict[str, Any]
    environment: dict[str, Any]
    ranking: dict[str, Any] | None
    evaluation: dict[str, Any]
    metrics: dict[str, list[dict[str, str]]]
    student: nn.Module | None
    facts: dict[str, str]

    @property
    def strategy(self) -> str | None:
        """The augmentation the student was trained with."""
        return self.facts.get("strategy")


def _json(path: Path) -> Any:
    return json.loads(path.read_text()) if path.exists() else None


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def read_run(folder: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        InputError: it is not one, or holds nothing to report yet.
    """
    config = read_options(folder / "config.toml")
    ranking = _json(folder / "ranking.json")
    student, facts = None, {}
    if (folder / "student.safetensors").exists():
        file = read_model_file(folder, "student")
        classes = len(json.loads(file.facts["classes"]))
        student, facts = load_model(file, None, classes), file.facts
    metrics = {
        "teacher": _rows(folder / "teacher_metrics.csv"),
        "student": _rows(folder / "metrics.csv"),
    }
    if ranking is None and not any(metrics.values()):
        raise InputError(f"{folder}: holds no ranking and no training yet; nothing to report")
    return RunRecord(
        folder,
        config,
        _json(folder / "env.json") or {},
        ranking,
        _json(folder / "eval.json") or {},
        metrics,
        student,
        facts,
    )
