"""Checkpoints: one safetensors file holding model, optimizer and progress, replaced atomically."""

import errno
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from .._files import damaged, read_tensors, write_tensors

FULL = (errno.ENOSPC, errno.EDQUOT)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"optimizer.{i}.{k}": v for i, slot in state.items() for k, v in slot.items()}


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    totals: Tensor,
    progress: dict[str, Any],
) -> None:
    """Write everything a training run needs to go on, bit for bit.

    Args:
        path: the file; the old one stays until the new one is complete.
        model: its whole ``state_dict``.
        optimizer: all state tensors.
        totals: running sums of the current epoch.
        progress: epoch, step, history; JSON.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    tensors |= _optimizer_tensors(optimizer) | {"totals": totals}
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
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    """Restore model and optimizer in place; return the running sums and the progress.

    Raises:
        InputError: the file is damaged, or of another model.
    """
    tensors, progress = read_checkpoint(path)
    weights = {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    try:
        model.load_state_dict(weights)
        optimizer.load_state_dict(_optimizer_state(optimizer, tensors))
    except (RuntimeError, ValueError, IndexError) as error:
        raise InputError(
            f"{path}: its tensors do not fit this model; use another run directory, or delete the"
            " file to start over"
        ) from error
    return tensors["totals"].to(device), progress


def _optimizer_state(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]
) -> dict[str, Any]:
    state = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            fitting = value if name == "step" else _like(parameters[int(index)], value, key)
            state["state"].setdefault(int(index), {})[name] = fitting
    return state


def _like(parameter: Tensor, value: Tensor, key: str) -> Tensor:
    """Return what an optimizer keeps of a parameter in its shape: steps once had no dimension.

    Raises:
        ValueError: it is another parameter's; torch would find out in the next step, or never.
    """
    if value.shape == () and parameter.shape == (1,):
        return value.reshape(1)
    if value.shape != parameter.shape:
        raise ValueError(f"{key}: {tuple(value.shape)} for a parameter {tuple(parameter.shape)}")
    return value
