"""The parts of a run, as its options and its run directory ask for them."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .. import _console
from .._errors import InputError
from ..augment import Stream, clean_inputs
from ..data import Dataset
from .averaging import Best, WeightAverage
from .config import TrainConfig
from .diagnostics import Diagnostics
from .epoch_log import JSONLines, TensorBoard
from .part import Part
from .stages import Stages, first_batches, last_stage, stages_of
from .steadying import steadying


def kept_states(
    model: nn.Module,
    config: TrainConfig,
    validate: Callable[[], float | None],
    steps: int,
    first: int,
) -> list[WeightAverage | Best]:
    """Return what keeps other states of the model, from epoch ``first`` of so many steps on."""
    kept: list[WeightAverage | Best] = [Best(model)]
    if config.ema is not None:
        kept.insert(0, WeightAverage(model, config.ema, validate, first * steps))
    for part in kept:
        part.first_epoch = first
    return kept


def student_parts(
    student: nn.Module, dataset: Dataset, config: TrainConfig, stream: Stream, quiet: bool
) -> list[Part]:
    """Return what holds a student's weights and what watches it, on the first training images.

    Raises:
        InputError: its quantizers do not allow what the options ask for.
    """
    steps, first = stream.steps(config.batch_size), last_stage(config)
    watching = steadying(student, config, config.epochs * steps, first * steps)
    if config.diagnose == "auto":
        watching.append(_diagnostics(student, dataset, config, quiet))
    for part in watching:
        part.first_epoch = first
    stages = stages_of(config)
    if not stages:
        return watching
    return [Stages(student, stages, lambda: first_batches(stream, config)), *watching]


def _diagnostics(
    student: nn.Module, dataset: Dataset, config: TrainConfig, quiet: bool
) -> Diagnostics:
    device = next(student.parameters()).device
    chosen = dataset.spread(config.batch_size)

    def images() -> Tensor:
        return clean_inputs(dataset.train.pixels[chosen], dataset.inputs, device)

    def say(text: str) -> None:
        if not quiet:
            _console.say(f"student: {text}")

    return Diagnostics(student, images, say)


def logs(parts: Sequence[Part], config: TrainConfig, folder: Path | None, role: str) -> list[Part]:
    """Return what writes about each epoch; nothing without a run directory.

    Raises:
        InputError: TensorBoard is asked for without a run directory, or is not installed.
    """
    if folder is None:
        if config.tensorboard:
            raise InputError("tensorboard: its files need a place; pass run_dir")
        return []

    def detail() -> dict[str, Any]:
        return {k: v for p in parts if isinstance(p, Diagnostics) for k, v in p.detail.items()}

    found: list[Part] = [JSONLines(folder / f"{prefix(role)}metrics.jsonl", detail)]
    if config.tensorboard:
        found.append(TensorBoard(folder / "tb" / role, config.epochs))
    return found


def prefix(role: str) -> str:
    """Return what the names of a role's files begin with, the student's with nothing."""
    return "" if role == "student" else f"{role}_"
