"""``teach``, ``rank``, ``train`` and ``run``: each step leaves its files, and is not repeated."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .. import _console, options
from ..augment import PAPER, get_strategy
from ..data import Dataset
from ..models import build
from ..quant import quantize
from ..ranking import Ranking, rank, search
from ..report import report
from ..train import TrainConfig, distill, teach
from ..train.store import ModelFile, read_model_file, save_model, save_packed
from .common import (
    DEFAULT_MODEL,
    PACKED,
    begin,
    data_of,
    device_of,
    recipe_of,
    student_config,
    teacher_of,
    views_of,
)
from .evaluate import evaluate_into


def teacher_config(
    verb: options.Common, epochs: int, batch_size: int, lr: float, weight_decay: float = 5e-4
) -> TrainConfig:
    """Return a teacher's training options: SGD."""
    return TrainConfig(
        epochs=epochs,
        batch_size=batch_size,
        optimizer="sgd",
        lr=lr,
        weight_decay=weight_decay,
        seed=verb.seed,
        workers=verb.workers,
        **views_of(verb),
    )


def run_teach(verb: options.Teach) -> None:
    """Train a teacher and keep it."""
    begin(verb, "teach")
    config = teacher_config(verb, verb.epochs, verb.batch_size, verb.lr, verb.weight_decay)
    teach_into(verb, data_of(verb), config, verb.strategy)


def teach_into(verb: options.Common, dataset: Dataset, config: TrainConfig, strategy: str) -> Path:
    """Train a teacher unless the run directory has it; return its file."""
    path = verb.out / "teacher.safetensors"
    if not path.exists():
        name = verb.model or DEFAULT_MODEL
        torch.manual_seed(config.seed)
        model = build(name, dataset.num_classes).to(device_of(verb.device))
        result = teach(
            model, dataset, strategy=strategy, config=config, run_dir=verb.out, quiet=False
        )
        save_model(path, result.model, name, dataset, strategy=strategy, **views_of(verb))
    _console.say(f"teacher: {path}")
    return path


def rank_into(
    verb: options.Rank | options.Train | options.Run,
    teacher: nn.Module,
    dataset: Dataset,
    views: dict[str, Any],
) -> Ranking:
    """Rank, show the table, write the files."""
    ranking = rank(
        teacher,
        dataset,
        strategies=verb.strategies or PAPER,
        images=verb.images,
        passes=verb.passes,
        seed=verb.seed,
        cmi_weight=verb.cmi_weight,
        pac_weight=verb.pac_weight,
        pac_limit=verb.pac_limit,
        budget=verb.budget,
        until_sure=verb.until_sure,
        teacher_dtype=getattr(torch, verb.teacher_dtype),
        **views,
        workers=verb.workers,
        run_dir=verb.out,
        quiet=False,
    )
    ranking.save(verb.out)
    _console.say(ranking.table)
    return ranking


def run_rank(verb: options.Rank) -> None:
    """Rank with a given teacher."""
    file = read_model_file(verb.teacher)
    begin(verb, "rank", file)
    dataset = data_of(verb, file)
    teacher = teacher_of(file, verb.model, dataset, device_of(verb.device))
    rank_into(verb, teacher, dataset, views_of(verb, file))


def run_search(verb: options.Search) -> None:
    """Search for a composition with a given teacher."""
    file = read_model_file(verb.teacher)
    begin(verb, "search", file)
    dataset = data_of(verb, file)
    found = search(
        teacher_of(file, verb.model, dataset, device_of(verb.device)),
        dataset,
        compositions=verb.compositions,
        images=verb.images,
        seed=verb.seed,
        cmi_weight=verb.cmi_weight,
        pac_weight=verb.pac_weight,
        teacher_dtype=getattr(torch, verb.teacher_dtype),
        **views_of(verb, file),
        run_dir=verb.out,
        quiet=False,
    )
    found.save(verb.out)
    _console.say(found.ranking.table)
    _console.say(f"train with it: daqakd train {verb.data} --strategy {found.best}")


def choose_strategy(
    verb: options.Train | options.Run,
    teacher: nn.Module,
    dataset: Dataset,
    views: dict[str, Any],
) -> str:
    """Return the strategy to train with, ranking when it is ``auto``."""
    if verb.strategy != "auto":
        return get_strategy(verb.strategy).name
    ranking = rank_into(verb, teacher, dataset, views)
    others = f"; tied with it: {', '.join(ranking.tied)}" if ranking.tied else ""
    _console.say(f"strategy: {ranking.best}, the lowest score{others}")
    return ranking.best


def train_into(verb: options.Train | options.Run, file: ModelFile, dataset: Dataset) -> Path:
    """Choose the strategy and train the student unless the run directory has it."""
    path = verb.out / "student.safetensors"
    if path.exists():
        pack_into(verb.out)
        return path
    device = device_of(verb.device)
    name = verb.model or file.model or DEFAULT_MODEL
    teacher = teacher_of(file, name, dataset, device)
    recipe = recipe_of(verb)
    student = quantize(teacher, **recipe)
    views = views_of(verb, file)
    strategy = choose_strategy(verb, teacher, dataset, views)
    result = distill(
        student,
        teacher,
        dataset,
        strategy=strategy,
        config=student_config(verb, file),
        run_dir=verb.out,
        quiet=False,
    )
    save_model(path, result.model, name, dataset, recipe, strategy, **views)
    pack_into(verb.out)
    return path


def pack_into(out: Path) -> None:
    """Write the student's packed form unless the run directory has it."""
    path = out / f"{PACKED}.safetensors"
    if not path.exists():
        student = read_model_file(out, "student")
        size, full = save_packed(path, student), student.path.stat().st_size
        _console.say(f"packed student: {path}, {size:,} bytes (unpacked {full:,})")


def run_train(verb: options.Train) -> None:
    """Train a student with a given teacher."""
    file = read_model_file(verb.teacher)
    begin(verb, "train", file)
    train_into(verb, file, data_of(verb, file))
    _console.say(f"student: {verb.out / 'student.safetensors'}")


def run_run(verb: options.Run) -> None:
    """Teach or take a teacher, rank, train, evaluate, report."""
    given = None if verb.teacher is None else read_model_file(verb.teacher)
    begin(verb, "run", given)
    dataset = data_of(verb, given)
    if given is None:
        config = teacher_config(verb, verb.teacher_epochs, verb.batch_size, verb.teacher_lr)
        given = read_model_file(teach_into(verb, dataset, config, verb.teacher_strategy))
    student = read_model_file(train_into(verb, given, dataset), "student")
    if not (verb.out / "eval.json").exists():
        files = {"teacher": given, "student": student}
        device, views = device_of(verb.device), views_of(verb, given)
        evaluate_into(verb.out, files, verb.model, dataset, device, views)
    if find_spec("matplotlib") is None:
        _console.say("report: skipped, it needs matplotlib (pip install 'daqakd[report]')")
        return
    _console.say(f"report: {report([verb.out])}")
