"""``--dry-run``: what a command would do, and how long it may take."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from .. import _console
from ..augment import clean_inputs
from ..data import Dataset
from ..quant import quantize
from ..ranking.job import count_images
from ..ranking.preview import image_seconds, search_images, search_seconds
from ..train import Result, TrainConfig, distill, teach
from ..train.preview import peak_bytes, steps_of, training_seconds
from ..train.store import ModelFile
from ._job import JobOptions, chosen_device
from ._start import own_start, student_name

if TYPE_CHECKING:
    from ._student import RankOptions, StudentOptions
    from .search import Options as SearchOptions


@dataclass(frozen=True)
class Stage:
    """A part of a command: what it is, and the seconds that it may take."""

    text: str
    seconds: float


def show(options: JobOptions, dataset: Dataset, stages: list[Stage]) -> None:
    """Print what a command would do."""
    device = chosen_device(options.device)
    seen, _ = dataset.inputs.sides(dataset.size, dataset.size)
    tested = clean_inputs(dataset.train.pixels[:1], dataset.inputs, device).shape[-1]
    _console.say(
        f"images: {len(dataset.fit):,} to fit, {len(dataset.heldout):,} held out,"
        f" {len(dataset.test):,} to test; {dataset.num_classes} classes, {dataset.size} x"
        f" {dataset.size} pixels, {seen} x {seen} for the network"
        + ("" if tested == seen else f", {tested} x {tested} when it is tested")
    )
    for stage in stages:
        _console.say(f"{stage.text}: about {duration(stage.seconds)}")
    _console.say(f"memory: {peak_bytes(device) / 2**20:,.0f} MiB at most so far, on {device}")
    whole = duration(sum(stage.seconds for stage in stages))
    _console.say(f"together: about {whole}; a dry run, nothing is kept in {options.out}")


def duration(seconds: float) -> str:
    """Return seconds as a person says them."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def teaching(
    options: JobOptions, dataset: Dataset, model: nn.Module, config: TrainConfig, strategy: str
) -> Stage:
    """Return the stage that trains a teacher; ``model`` is trained."""
    times = training_seconds(
        lambda data, few: teach(model, data, strategy=strategy, config=few), dataset, config
    )
    name = options.model_name(None)
    return Stage(_training("teacher", name, model, dataset, config, times[0]), times[1])


def ranking(options: "RankOptions", dataset: Dataset, teacher: nn.Module) -> tuple[Stage, str]:
    """Return the stage that ranks, and the strategy that takes longest."""
    config = options.rank_config
    times = image_seconds(teacher, dataset, config, config.names)
    images = count_images(dataset, config.images) * config.num_passes
    seconds = images * sum(times.values())
    if config.budget is not None:
        seconds = min(seconds, config.budget)
    text = f"ranking: {len(times)} strategies, {images:,} images each"
    return Stage(text, seconds), max(times, key=times.__getitem__)


def searching(options: "SearchOptions", dataset: Dataset, teacher: nn.Module) -> Stage:
    """Return the stage that searches."""
    config = options.search_config
    rungs = ", ".join(f"{live} on {images:,}" for images, live in search_images(dataset, config))
    text = f"search: compositions on images, rung by rung: {rungs}"
    return Stage(text, search_seconds(teacher, dataset, config))


def student(
    options: "StudentOptions",
    dataset: Dataset,
    teacher: nn.Module,
    file: ModelFile | None,
    least: float = 0.0,
) -> list[Stage]:
    """Return the stages that rank, where that is asked for, and train a student.

    Training is measured on a few steps, or on as many as take ``least`` seconds.
    """
    stages, strategy = [], options.strategy
    if strategy == "auto":
        stage, strategy = ranking(options, dataset, teacher)
        stages.append(stage)
    recipe = options.quantize_options
    own = own_start(options, file, dataset)
    start = teacher if own is None else own

    def train(data: Dataset, few: TrainConfig) -> Result:
        made = quantize(start, **recipe)
        return distill(made, teacher, data, strategy=strategy, config=few)

    config = options.train_config
    one, seconds = training_seconds(train, dataset, config, least)
    named = f"{student_name(options, file)} {options.quantization.short}"
    text = _training("student", named, start, dataset, config, one)
    return [*stages, Stage(text, seconds)]


def _training(
    role: str, name: str, model: nn.Module, dataset: Dataset, config: TrainConfig, one: float
) -> str:
    count = sum(p.numel() for p in model.parameters())
    steps = steps_of(dataset, config)
    return (
        f"{role}: {name}, {count:,} parameters, {config.epochs} epochs of {steps:,} steps of"
        f" {config.batch_size} images, {1000 * one:,.1f} ms a step"
    )
