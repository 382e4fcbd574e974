"""``eval``: test accuracy of teachers, students and packed students."""

import json
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
from .common import PACKED, device_of, teacher_of


def test_accuracy(
    file: ModelFile, name: str | None, dataset: Dataset, device: torch.device
) -> float:
    """Return a model file's accuracy on the test images."""
    model = teacher_of(file, name, dataset, device)
    return accuracy(model, dataset.test, dataset.mean, dataset.std, device)


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
        share = test_accuracy(file, verb.model, dataset, device)
        _console.say(f"teacher {file.path}: {share:.2%} of {len(dataset.test)} test images")
        return
    out = Path(verb.target)
    noted = read(out / "config.toml")
    config = noted.get("train") or noted.get("run")
    if config is None:
        raise InputError(f"{out}: has no student; it holds {', '.join(noted)}. Run train first")
    file = read_model_file(out, PACKED if verb.packed else "student")
    dataset = load(config["data"], size=config.get("size"), holdout=0).normalised(
        file.channels("mean"), file.channels("std")
    )
    evaluate_into(out, {"packed" if verb.packed else "student": file}, None, dataset, device)


def evaluate_into(
    out: Path,
    files: dict[str, ModelFile],
    name: str | None,
    dataset: Dataset,
    device: torch.device,
) -> dict[str, float]:
    """Evaluate models on the test images, once, and add them to ``eval.json``."""
    shares = {role: test_accuracy(f, name, dataset, device) for role, f in files.items()}
    for role, share in shares.items():
        _console.say(f"{role}: {share:.2%} of {len(dataset.test)} test images")
    path = out / "eval.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for role, share in shares.items():
        record |= {f"{role}_accuracy": share, f"{role}_bytes": files[role].path.stat().st_size}
    write_json(path, {**record, "test_images": len(dataset.test)})
    return shares
