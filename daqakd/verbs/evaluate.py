"""``eval``: test accuracy of teachers, students and packed students."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from .. import _console, options
from .._errors import InputError
from .._files import write_json
from ..data import Dataset, load
from ..train import accuracy
from ..train.config import read
from ..train.store import ModelFile, read_model_file
from .common import PACKED, device_of, resized_to, teacher_of


def test_accuracy(
    file: ModelFile,
    name: str | None,
    dataset: Dataset,
    device: torch.device,
    views: Mapping[str, Any],
) -> float:
    """Return a model file's accuracy on the test images."""
    model = teacher_of(file, name, dataset, device)
    return accuracy(model, dataset.test, dataset.mean, dataset.std, device, **views)


def views_in(file: ModelFile, input_size: int | None = None) -> dict[str, Any]:
    """Return the ``pipeline`` and ``semantics`` of clean images, as the file or the option says."""
    pipeline = file.pipeline if input_size is None else resized_to(input_size)
    return {"pipeline": pipeline, "semantics": file.semantics}


def run_eval(verb: options.Eval) -> None:
    """Evaluate a run's student, or a teacher."""
    device = device_of(verb.device)
    if verb.teacher is not None and verb.packed:
        raise InputError("packed: is for a run's student, not for --teacher; drop one of the two")
    if verb.teacher is not None:
        file = read_model_file(verb.teacher)
        dataset = load(verb.target, size=verb.size, holdout=0).normalised(
            verb.mean or file.channels("mean"), verb.std or file.channels("std")
        )
        views = views_in(file, verb.input_size)
        share = test_accuracy(file, verb.model, dataset, device, views)
        _console.say(f"teacher {file.path}: {share:.2%} of {len(dataset.test)} test images")
        return
    if verb.input_size is not None:
        raise InputError("input_size: is for --teacher; a run's student has its own; leave it out")
    out = Path(verb.target)
    noted = read(out / "config.toml")
    config = noted.get("train") or noted.get("run")
    if config is None:
        raise InputError(f"{out}: has no student; it holds {', '.join(noted)}. Run train first")
    file = read_model_file(out, PACKED if verb.packed else "student")
    dataset = load(config["data"], size=config.get("size"), holdout=0).normalised(
        file.channels("mean"), file.channels("std")
    )
    role = "packed" if verb.packed else "student"
    evaluate_into(out, {role: file}, None, dataset, device, views_in(file))


def evaluate_into(
    out: Path,
    files: dict[str, ModelFile],
    name: str | None,
    dataset: Dataset,
    device: torch.device,
    views: Mapping[str, Any],
) -> dict[str, float]:
    """Evaluate models on the test images, once, and add them to ``eval.json``."""
    shares = {r: test_accuracy(f, name, dataset, device, views) for r, f in files.items()}
    for role, share in shares.items():
        _console.say(f"{role}: {share:.2%} of {len(dataset.test)} test images")
    path = out / "eval.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for role, share in shares.items():
        record |= {f"{role}_accuracy": share, f"{role}_bytes": files[role].path.stat().st_size}
    write_json(path, {**record, "test_images": len(dataset.test)})
    return shares
