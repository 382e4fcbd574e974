"""Checks of what callers hand over: states' batches, rankings' teachers and data sets."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..data import Dataset

SOFT_KEYS = ("log_probs", "targets", "fold")


def _kind(value: Any) -> str:
    return (
        f"{value.dtype} {list(value.shape)}"
        if isinstance(value, Tensor)
        else " ".join(repr(value).split())[:60]
    )


def check_count(name: str, value: Any) -> None:
    """Raise InputError for what is no integer from 1 on."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name}: expected an integer from 1 on, got {_kind(value)}")


def device_of(device: Any) -> torch.device:
    """Return a device by its name; None for the CPU."""
    try:
        return torch.device("cpu" if device is None else device)
    except (RuntimeError, TypeError) as error:
        raise InputError(
            f"device: expected a device such as 'cpu' or 'cuda', got {_kind(device)}"
        ) from error


def check_batch(logits: Any, labels: Any) -> None:
    """Raise InputError where a batch is not of tensors; the op checks their values."""
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise InputError(f"logits: expected a tensor [B, C], got {_kind(logits)}")
    triple = isinstance(labels, tuple) and len(labels) == 3
    if not isinstance(labels, Tensor) and not (
        triple and all(isinstance(part, Tensor) for part in labels)
    ):
        raise InputError(
            "labels: expected int64 [B], probabilities [B, C], or a tuple of three tensors [B]"
            f" (first labels, second labels, weight of the first), got {_kind(labels)}"
        )


def folds_of(fold: Any, logits: Tensor, count: int) -> Tensor:
    """Return the fold of each row of ``logits``: int64 ``[B]`` on their device."""
    if isinstance(fold, Tensor) and fold.dtype == torch.int64 and fold.shape == logits.shape[:1]:
        return fold.to(logits.device)
    if isinstance(fold, int) and not isinstance(fold, bool) and 0 <= fold < count:
        return torch.full(logits.shape[:1], fold, device=logits.device)
    raise InputError(
        f"fold: expected an integer from 0 to {count - 1}, or int64 [{len(logits)}],"
        f" got {_kind(fold)}"
    )


def check_weights(**weights: Any) -> None:
    """Raise InputError for the first weight of a score that is no finite number."""
    for name, value in weights.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not math.isfinite(value):
            raise InputError(f"{name}: expected a finite number, got {_kind(value)}")


def check_saved(state: Any, sums: Tensor) -> None:
    """Raise InputError where ``state`` is not what a state with such ``sums`` saves."""
    if not isinstance(state, Mapping) or not isinstance(state.get("sums"), Tensor):
        raise InputError(f"state: expected what state_dict returned, got {_kind(state)}")
    saved, soft = state["sums"], [state.get(key) for key in SOFT_KEYS]
    if saved.shape != sums.shape or saved.dtype != sums.dtype:
        raise InputError(
            f"sums: expected {sums.dtype} {tuple(sums.shape)}, got {_kind(saved)}; make the state"
            " with the same classes and folds"
        )
    if any(part is not None for part in soft):
        rows = {len(part) if isinstance(part, Tensor) else None for part in soft}
        if len(rows) != 1 or None in rows:
            raise InputError(
                f"state: expected {', '.join(SOFT_KEYS)} of as many rows, got"
                f" {', '.join(map(_kind, soft))}"
            )


def check_ranking(teacher: Any, dataset: Any, run_dir: Any) -> Path | None:
    """Return the folder to keep work in; a wrong teacher or data set is an error."""
    if not isinstance(teacher, nn.Module):
        raise InputError(
            f"teacher: expected a torch.nn.Module, got {_kind(teacher)}; a function needs a module"
            " around it"
        )
    if not isinstance(dataset, Dataset):
        raise InputError(
            f"dataset: expected what daqakd.data.load or wrap returns, got {_kind(dataset)}"
        )
    if run_dir is not None and not isinstance(run_dir, str | Path):
        raise InputError(f"run_dir: expected a path or None, got {_kind(run_dir)}")
    return None if run_dir is None else Path(run_dir)
