"""Checks of what callers hand over: states' batches, rankings' teachers and data sets."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .._arguments import check_flag, check_module, device_of_model, path_of
from .._errors import InputError, seen
from ..data import Dataset

SOFT_KEYS = ("log_probs", "targets", "fold")


def check_count(name: str, value: Any) -> None:
    """Raise InputError for what is no integer from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: expected an integer from 1 on, got {seen(value)}")


def check_batch(logits: Any, labels: Any) -> None:
    """Raise InputError where a batch is not of tensors; the op checks their values."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise InputError(f"logits: expected a tensor [B, C], got {seen(logits)}")
    triple = isinstance(labels, tuple) and len(labels) == 3
    if not isinstance(labels, Tensor) and not (
        triple and all(isinstance(part, Tensor) for part in labels)
    ):
        raise InputError(
            "labels: expected int64 [B], probabilities [B, C], or a tuple of three tensors [B]"
            f" (first labels, second labels, weight of the first), got {seen(labels)}"
        )


def folds_of(fold: Any, logits: Tensor, count: int) -> Tensor:
    """Return the fold of each row of ``logits``: int64 ``[B]`` on their device."""
    if isinstance(fold, Tensor) and fold.dtype == torch.int64 and fold.shape == logits.shape[:1]:
        return fold.to(logits.device)
    if isinstance(fold, int) and not isinstance(fold, bool) and 0 <= fold < count:
        return torch.full(logits.shape[:1], fold, device=logits.device)
    raise InputError(
        f"fold: expected an integer from 0 to {count - 1}, or int64 [{len(logits)}],"
        f" got {seen(fold)}"
    )


def check_weights(**weights: Any) -> None:
    """Raise InputError for the first weight of a score that is no finite number."""
    for name, value in weights.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise InputError(f"{name}: expected a finite number, got {seen(value)}")


def check_saved(state: Any, sums: Tensor) -> None:
    """Raise InputError where ``state`` is not what a state with such ``sums`` saves."""
    if not isinstance(state, Mapping) or not isinstance(state.get("sums"), Tensor):
        raise InputError(f"state: expected what state_dict returned, got {seen(state)}")
    saved, soft = state["sums"], [state.get(key) for key in SOFT_KEYS]
    if saved.shape != sums.shape or saved.dtype != sums.dtype:
        raise InputError(
            f"sums: expected {sums.dtype} {tuple(sums.shape)}, got {seen(saved)}; make the state"
            " with the same classes and folds"
        )
    if any(part is not None for part in soft):
        rows = {len(part) if isinstance(part, Tensor) else None for part in soft}
        if len(rows) != 1 or None in rows:
            raise InputError(
                f"state: expected {', '.join(SOFT_KEYS)} of as many rows, got"
                f" {', '.join(map(seen, soft))}"
            )


def check_run(dataset: Any, run_dir: Any, quiet: Any, **models: Any) -> Path | None:
    """Return the folder to keep work in; wrong models, data sets and flags are errors."""
    devices = {}
    for name, model in models.items():
        check_module(name, model)
        devices[name] = device_of_model(name, model)
    if len({*devices.values()}) > 1:
        places = ", ".join(f"{name} on {device}" for name, device in devices.items())
        raise InputError(f"{next(iter(models))}: expected models on one device, got {places}")
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"dataset: expected what daqakd.data.load or wrap returns, got {seen(dataset)}"
        )
    check_flag("quiet", quiet)
    return None if run_dir is None else path_of("run_dir", run_dir)
