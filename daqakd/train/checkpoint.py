"""Checkpoints: one safetensors file holding model, optimizer and progress, replaced atomically."""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from .._files import damaged, read_tensors, write_tensors
from .optimizers import Optimizers
from .part import Part, load_into, tensors_of

FULL = (errno.ENOSPC, errno.EDQUOT)


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizers,
    parts: Sequence[Part],
    totals: Tensor,
    progress: dict[str, Any],
) -> None:
    """Write everything a training run needs to go on, bit for bit.

    Args:
        path: the file; the old one stays until the new one is complete.
        model: its whole ``state_dict``.
        optimizer: all state tensors.
        parts: likewise.
        totals: running sums of the current epoch.
        progress: epoch, step, history; JSON.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"optimizer.{k}": v for k, v in optimizer.tensors().items()}
    tensors |= tensors_of(parts) | {"totals": totals}
    try:
        write_tensors(path, tensors, {"place": json.dumps(progress)})
    except OSError as error:
        advice = "Free some space and run" if error.errno in FULL else "Once it can be, run"
        raise InputError(
            f"{path}: the checkpoint could not be written ({error.strerror}); the one before it is"
            f" intact. {advice} the same command again"
        ) from error


def read_checkpoint(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return all tensors and the progress.

    Raises:
        InputError: the file is damaged.
    """
    tensors, facts = read_tensors(path)
    try:
        progress: dict[str, Any] = json.loads(facts["place"])
    except (KeyError, ValueError) as error:
        raise damaged(path, "its progress cannot be read") from error
    return tensors, progress


def read_progress(path: Path) -> dict[str, Any]:
    """Return the progress alone."""
    return read_checkpoint(path)[1]


def load_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: Optimizers,
    parts: Sequence[Part],
    device: torch.device,
) -> tuple[Tensor, dict[str, Any]]:
    """Restore model, optimizer and parts in place; return the running sums and the progress.

    Raises:
        InputError: the file is damaged, or of another model.
    """
    tensors, progress = read_checkpoint(path)
    try:
        model.load_state_dict(_under("model.", tensors))
        optimizer.load(_under("optimizer.", tensors))
        load_into(parts, tensors)
    except (RuntimeError, ValueError, LookupError) as error:
        raise InputError(
            f"{path}: its tensors do not fit this model; use another run directory, or delete the"
            " file to start over"
        ) from error
    return tensors["totals"].to(device), progress


def _under(start: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(start): v for k, v in tensors.items() if k.startswith(start)}
