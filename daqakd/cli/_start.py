"""What a student starts from: its architecture, and its weights before they are quantized."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from .._errors import InputError, suggest
from ..augment.draws import check_seed, generator_seed
from ..data import Dataset
from ..models import build
from ..models import find as find_model
from ..train.store import ModelFile, load_model, read_model_file
from ._job import chosen_device, on_images

if TYPE_CHECKING:
    from ._student import StudentOptions

TEACHER, RANDOM = "teacher", "random"


def student_name(options: "StudentOptions", teacher: ModelFile | None) -> str:
    """Return the name of the student's model; by default it is the teacher's."""
    return options.model_name(teacher) if options.student_model is None else options.student_model


def seeded(name: str, dataset: Dataset, seed: int, device: torch.device) -> nn.Module:
    """Return a model with the initial weights of a seed."""
    torch.manual_seed(generator_seed(check_seed(seed)))
    return build(name, dataset.num_classes).to(device)


def check_start(options: "StudentOptions", teacher: ModelFile | None) -> None:
    """Raise InputError where the student cannot start as the options say."""
    name, of_teacher = student_name(options, teacher), options.model_name(teacher)
    find_model(name)
    init = _init(options, teacher)
    if init == TEACHER and name != of_teacher:
        raise InputError(
            f"init: the teacher's weights are of {of_teacher}, and the student is {name}; use"
            " --init random, or a file of the student's model"
        )
    if init not in (TEACHER, RANDOM):
        _check_file(_init_file(init), name)


def own_start(
    options: "StudentOptions", teacher: ModelFile | None, dataset: Dataset
) -> nn.Module | None:
    """Return what a student starts from other than its teacher, on the device; None for that.

    Raises:
        InputError: it cannot be built or loaded, or gives no logits for the data set's images.
    """
    name, device = student_name(options, teacher), chosen_device(options.device)
    init = _init(options, teacher)
    if init == TEACHER:
        return None
    if init == RANDOM:
        model = seeded(name, dataset, options.seed, device)
    else:
        model = load_model(_init_file(init), name, dataset.num_classes).to(device)
    return on_images(model, f"student_model ({name})", dataset, device)


def _init(options: "StudentOptions", teacher: ModelFile | None) -> str:
    """Return where the first weights come from; of another architecture they are random."""
    if options.init is not None:
        return options.init
    return TEACHER if student_name(options, teacher) == options.model_name(teacher) else RANDOM


def _init_file(init: str) -> ModelFile:
    if not init or not Path(init).exists():
        raise InputError(
            f"init: {init!r} is no file.{suggest(init, [TEACHER, RANDOM])} Use teacher, random, or"
            " the path of a model file or of a run with a teacher"
        )
    return read_model_file(init)


def _check_file(file: ModelFile, name: str) -> None:
    if file.model not in (None, name):
        raise InputError(
            f"init: {file.path} is of {file.model}, and the student is {name}; add --student-model"
            f" {file.model}, or use another file"
        )
    if "quantize" in file.facts:
        raise InputError(
            f"init: {file.path} is quantized already; use the full-precision model it was made from"
        )
