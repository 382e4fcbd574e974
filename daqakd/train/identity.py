"""What a checkpoint belongs to: its data set, teacher, options and quantizers."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..data import Dataset
from ..quant.base import Quantizer, ScalesGradients
from .checkpoint import read_progress
from .config import TrainConfig

# these may change on the way: how far to train, and what leaves the numbers as they are
FREE = ("epochs", "workers", "prefetch", "checkpoint_seconds", "diagnose", "tensorboard")

PARTS = {
    "data": "on another data set",
    "options": "with other options",
    "quantizers": "with other quantizers",
}


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a SHA-256 of tensors with their names, dtypes and shapes."""
    digest = hashlib.sha256()
    for name, value in tensors.items():
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def identity(
    dataset: Dataset,
    strategy: str,
    config: TrainConfig,
    model: nn.Module,
    teacher: nn.Module | None = None,
    losses: Sequence[str] = (),
) -> dict[str, Any]:
    """Return what the checkpoints of a model's run are written with; JSON."""
    fixed = {"epochs"} if config.bits_schedule else set()  # its parts would be others
    given = {k: v for k, v in vars(config).items() if k in fixed or k not in FREE}
    options = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items()}
    options |= {"strategy": strategy, "flip": dataset.flip, "losses": [*losses]}
    return {**_origin(dataset, teacher), "options": options, "quantizers": _quantizers(model)}


def _quantizers(model: nn.Module) -> dict[str, str]:
    """Return the method and the bits of every quantizer by its name, and whose delta moves."""
    found = ((n, m) for n, m in model.named_modules() if isinstance(m, Quantizer))
    return {name: f"{one.method}, {one.bits} bits{_delta(one)}" for name, one in found}


def _delta(quantizer: Quantizer) -> str:
    updated = isinstance(quantizer, ScalesGradients) and quantizer.updates_delta
    return ", delta by the Hessian" if updated else ""


def _origin(dataset: Dataset, teacher: nn.Module | None) -> dict[str, Any]:
    split = digest_of({"fit": dataset.fit, "heldout": dataset.heldout})
    images = dataset.train.identity()
    data = {
        "classes": list(dataset.classes),
        "training images": len(dataset.fit),
        "held-out images": len(dataset.heldout),
        "digest": hashlib.sha256(f"{images} {split}".encode()).hexdigest(),
    }
    return {"data": data, "teacher": None if teacher is None else digest_of(teacher.state_dict())}


def check_finished(
    path: Path, role: str, dataset: Dataset, teacher: nn.Module | None = None
) -> None:
    """Raise InputError where the model at ``path``, in its run directory, is of other data.

    Its checkpoint tells; without one, the model is taken as it is.
    """
    checkpoint = path.parent / "checkpoint" / f"{role}.safetensors"
    if checkpoint.exists():
        there = read_progress(checkpoint)
        here = {**_origin(dataset, teacher), "options": there.get("options", {})}
        check_identity(path, role, there, here)


def check_identity(path: Path, title: str, there: dict[str, Any], here: dict[str, Any]) -> None:
    """Raise InputError where a checkpoint belongs to something else; an older one tells less."""
    for key, what in PARTS.items():
        own = here.get(key, {})
        changed = _changes(there.get(key, own), own)
        if changed:
            raise _refusal(path, title, f"{what}: {changed}")
    if there.get("teacher", here["teacher"]) != here["teacher"]:
        raise _refusal(path, title, "with another teacher: its weights differ")


def _refusal(path: Path, title: str, what: str) -> InputError:
    return InputError(
        f"{path}: holds a {title}'s run {what}. Use another run directory, or delete this file to"
        " start over"
    )


def _changes(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Say what differs; a digest says nothing that a reader could use."""
    shown = [
        f"{key} ({_short(there[key])} there, {_short(here[key])} here)"
        for key in here
        if key in there and there[key] != here[key] and key != "digest"
    ]
    if not shown and there.get("digest") != here.get("digest"):
        return "pixels, labels or the held-out split differ"
    return ", ".join(shown)


def _short(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 100 else text[:100] + "..."
