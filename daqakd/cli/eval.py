"""``eval``: test accuracy of teachers, students and packed students."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro

from .. import _console
from .._errors import InputError
from .._files import read_json, write_json
from .._lock import working_in
from ..augment import ResizedCrop
from ..data import Dataset, load
from ..export import OnnxModel
from ..train import accuracy
from ..train.options_file import read_options
from ..train.store import ModelFile, load_model, read_model_file
from ._job import DEFAULT_MODEL, chosen_device
from ._options import (
    Device,
    OptionalChannels,
    OptionalClean,
    OptionalInt,
    OptionalName,
    OptionalPath,
    changed,
)
from ._student import PACKED


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``eval``."""

    target: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|DATA")]
    """A run directory; or, with --teacher, a data set."""
    teacher: OptionalPath = None
    """Evaluate this teacher on DATA instead of a run."""
    packed: bool = False
    """Evaluate the run's student.packed.safetensors; its outputs are the student's, bit for bit."""
    onnx: bool = False
    """Evaluate the run's student.onnx by onnxruntime; daqakd export RUN writes it."""
    model: OptionalName = None
    """Model name; default: the file's, else resnet20. A package.module:function that a file names
    is imported only where it is repeated here."""
    mean: OptionalChannels = None
    """Per-channel mean; default: the file's, else ImageNet's."""
    std: OptionalChannels = None
    """Per-channel standard deviation; default as for --mean."""
    size: OptionalInt = None
    """Resize images to this side."""
    input_size: OptionalInt = None
    """Side that the teacher sees: resize to 8/7 of it and keep the middle; default: as its file
    says, else the images as they are."""
    clean: OptionalClean = None
    """What of those the teacher sees: the middle, or the whole of them; default: as its file says,
    else the middle."""
    device: Device = "auto"
    """Where to compute."""


def run(options: Options) -> None:
    """Evaluate a run's student, or a teacher."""
    for name in ("packed", "onnx"):
        if options.teacher is not None and getattr(options, name):
            raise InputError(
                f"{name}: is for a run's student, not for --teacher; drop one of the two"
            )
    if options.packed and options.onnx:
        raise InputError("onnx: is another file than --packed's; drop one of the two")
    if options.teacher is not None:
        return eval_teacher(options, read_model_file(options.teacher))
    for name in ("input_size", "clean", "size", "mean", "std"):
        if getattr(options, name) is not None:
            raise InputError(f"{name}: is for --teacher; a run's student has its own; leave it out")
    out = Path(options.target)
    read_options(out / "config.toml")  # a folder that is no run is left as it is
    with working_in(out, "run"):
        if options.onnx:
            eval_onnx(out)
        else:
            eval_run(out, options.packed, options.model, chosen_device(options.device))


def eval_teacher(options: Options, file: ModelFile) -> None:
    """Evaluate a teacher on a data set."""
    changes = _inputs(options, file)
    dataset = load(options.target, size=options.size, holdout=0).with_inputs(**changes)
    right = test_accuracy(file, options.model, dataset, chosen_device(options.device))
    _console.say(f"teacher {file.path}: {right:.2%} of {len(dataset.test)} test images")


def _inputs(options: Options, file: ModelFile) -> dict[str, Any]:
    """Return the fields of ``InputSpec`` as the options say, or else the file."""
    changes = file.inputs | {"mean": options.mean or file.channels("mean")}
    changes["std"] = options.std or file.channels("std")
    if options.input_size is not None:
        changes["pipeline"] = changed(ResizedCrop(), {"size": options.input_size})
    if options.clean is None:
        return changes
    if "pipeline" not in changes:
        raise InputError(
            f"clean: {options.clean} asked for, but {file.path} is of images that are not resized;"
            " add --input-size, or leave --clean out"
        )
    return {**changes, "clean": options.clean}


def eval_run(out: Path, packed: bool, name: str | None, device: torch.device) -> None:
    """Evaluate a run's student, on the data set it was trained on."""
    file, dataset = student_and_data(out, PACKED if packed else "student")
    role = "packed" if packed else "student"
    evaluate_into(out, {role: file}, {role: name}, dataset, device)


def eval_onnx(out: Path) -> None:
    """Evaluate a run's ONNX file by onnxruntime, and add that to ``eval.json``."""
    path = out / "student.onnx"
    model, dataset = OnnxModel(path), student_and_data(out, "student")[1]
    right = accuracy(model, dataset.test, dataset.inputs)
    note_accuracy(out, "onnx", right, path, dataset)


def student_and_data(out: Path, role: str) -> tuple[ModelFile, Dataset]:
    """Return a run's student and the data set it was trained on.

    Raises:
        InputError: the run has no student.
    """
    written = read_options(out / "config.toml")
    config = written.get("train") or written.get("run")
    if config is None:
        raise InputError(f"{out}: has no student; it holds {', '.join(written)}. Run train first")
    file = read_model_file(out, role)
    dataset = load(config["data"], size=config.get("size"), holdout=0)
    return file, dataset.with_inputs(**file.inputs)


def test_accuracy(
    file: ModelFile, name: str | None, dataset: Dataset, device: torch.device
) -> float:
    """Return a model file's accuracy on the test images."""
    model = load_model(file, file.name(name, DEFAULT_MODEL), dataset.num_classes)
    return accuracy(model.to(device), dataset.test, dataset.inputs, device)


def evaluate_into(
    out: Path,
    files: dict[str, ModelFile],
    names: Mapping[str, str | None],
    dataset: Dataset,
    device: torch.device,
) -> dict[str, float]:
    """Evaluate models on the test images, once, and add them to ``eval.json``.

    ``files`` and the ``names`` of their models are by role.
    """
    accuracies = {r: test_accuracy(f, names[r], dataset, device) for r, f in files.items()}
    for role, right in accuracies.items():
        note_accuracy(out, role, right, files[role].path, dataset)
    return accuracies


def note_accuracy(out: Path, role: str, right: float, file: Path, dataset: Dataset) -> None:
    """Tell a file's accuracy, and add it with the file's size to ``eval.json``."""
    _console.say(f"{role}: {right:.2%} of {len(dataset.test)} test images")
    path = out / "eval.json"
    record = read_json(path) if path.exists() else {}
    record |= {f"{role}_accuracy": right, f"{role}_bytes": file.stat().st_size}
    write_json(path, {**record, "test_images": len(dataset.test)})
