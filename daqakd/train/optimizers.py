"""Optimizers of a run: one, or one for the model and one for its quantizers."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..quant.base import Quantizer
from .config import TrainConfig

MODEL, LOSSES = "model", "losses"  # the names of the groups that are not the quantizers'
FUSED = ("cpu", "cuda")  # devices where one pass over parameters and state is the fastest


def _made(kind: str, groups: list[dict[str, Any]], config: TrainConfig) -> torch.optim.Optimizer:
    devices = {parameter.device.type for group in groups for parameter in group["params"]}
    fused = True if devices <= set(FUSED) else None
    if kind == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=fused)
    if kind == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=fused)
    nesterov = config.nesterov and config.momentum > 0
    return torch.optim.SGD(
        groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=fused
    )


def check_quantizer_options(student: nn.Module, config: TrainConfig) -> None:
    """Raise InputError for options of a group that a student's quantizers do not have."""
    if not any(isinstance(m, Quantizer) and m.flavour == "mqbench" for m in student.modules()):
        return
    for name in ("quantizer_lr", "quantizer_optimizer", "alpha_decay"):
        if getattr(config, name) is not None:
            raise InputError(
                f"{name}: the quantizers of flavour='mqbench' train with the weights, by their"
                f" optimizer, learning rate and decay; leave {name} out, or use flavour='paper'"
            )


class Optimizers:
    """What steps all parameters, with one state for a checkpoint.

    Args:
        groups: parameters with their options, each with a ``name``; see ``param_groups``.
        config: kinds, momentum and the peak learning rate.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], config: TrainConfig) -> None:
        kinds = dict.fromkeys((MODEL, LOSSES), config.optimizer)
        other = config.quantizer_optimizer or config.optimizer
        by_kind: dict[str, list[dict[str, Any]]] = {}
        for group in groups:
            kind = kinds.get(group.get("name", MODEL), other)
            by_kind.setdefault(kind, []).append(group)
        self.all = [_made(kind, own, config) for kind, own in by_kind.items()]
        self.peaks = [group["lr"] for group in self.param_groups]

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all, which loading a state replaces."""
        return [group for one in self.all for group in one.param_groups]

    @property
    def parameters(self) -> list[Tensor]:
        """All parameters, in the order of their numbers in :meth:`tensors`."""
        return [p for group in self.param_groups for p in group["params"]]

    def scale(self, factor: float) -> None:
        """Set every learning rate to its peak times ``factor``."""
        for group, peak in zip(self.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def step(self) -> None:
        """Move all parameters."""
        for one in self.all:
            one.step()

    def tensors(self) -> dict[str, Tensor]:
        """Return the state by ``number of the parameter.name``."""
        found: dict[str, Tensor] = {}
        first = 0
        for one in self.all:
            state = one.state_dict()["state"]
            found |= {f"{first + i}.{k}": v for i, slot in state.items() for k, v in slot.items()}
            first += sum(len(group["params"]) for group in one.param_groups)
        return found

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Take the state that :meth:`tensors` returned.

        Raises:
            ValueError: a tensor is another parameter's.
            IndexError: there is no such parameter.
        """
        parameters, slots = self.parameters, [(o, i) for o in self.all for i in range(_count(o))]
        states = {id(one): one.state_dict() for one in self.all}
        for key, value in tensors.items():
            number, name = key.split(".", 1)
            fitting = value if name == "step" else _like(parameters[int(number)], value, key)
            one, own = slots[int(number)]
            states[id(one)]["state"].setdefault(own, {})[name] = fitting
        for one in self.all:
            one.load_state_dict(states[id(one)])


def _count(optimizer: torch.optim.Optimizer) -> int:
    return sum(len(group["params"]) for group in optimizer.param_groups)


def _like(parameter: Tensor, value: Tensor, key: str) -> Tensor:
    """Return what an optimizer keeps of a parameter, in its shape and memory format.

    Steps once had no dimension; and a fused optimizer goes through all of a parameter's memory in
    one order, so values in another would be taken for other elements'.

    Raises:
        ValueError: it is another parameter's; torch would find out in the next step, or never.
    """
    if value.shape == () and parameter.shape == (1,):
        value = value.reshape(1)
    if value.shape != parameter.shape:
        raise ValueError(f"{key}: {tuple(value.shape)} for a parameter {tuple(parameter.shape)}")
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
