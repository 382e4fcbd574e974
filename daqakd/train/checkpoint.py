"""Checkpoints: one safetensors file holding model, optimizer and progress, replaced atomically."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from .._errors import InputError
from .._files import write_tensors


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
        raise InputError(
            f"{path}: the checkpoint could not be written ({error.strerror}); the one before it is"
            " intact. Free some space and run the same command again"
        ) from error


def read_progress(path: Path) -> dict[str, Any]:
    """Return the progress alone."""
    with safe_open(path, "pt") as file:
        progress: dict[str, Any] = json.loads(file.metadata()["place"])
    return progress


def load_checkpoint(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[Tensor, dict[str, Any]]:
    """Restore model and optimizer in place; return the running sums and the progress."""
    with safe_open(path, "pt") as file:
        tensors = {k: file.get_tensor(k) for k in file.keys()}  # noqa: SIM118
    model.load_state_dict(
        {k.removeprefix("model."): v for k, v in tensors.items() if k.startswith("model.")}
    )
    state = optimizer.state_dict()
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            state["state"].setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(state)
    return tensors["totals"].to(device), read_progress(path)
