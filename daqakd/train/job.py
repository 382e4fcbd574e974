"""What a run works on, as its parts and its loop take it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data import Dataset
from .config import TrainConfig


@dataclass(frozen=True)
class Job:
    """The data, the options, and what is written.

    ``folder`` is the run directory or None, ``role`` what trains, ``belongs`` what its checkpoints
    tell of it; ``quiet`` shows no progress.
    """

    dataset: Dataset
    config: TrainConfig
    folder: Path | None
    role: str
    quiet: bool
    belongs: dict[str, Any]
