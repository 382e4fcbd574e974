"""``param_groups``: separate optimizer settings for quantizer parameters."""

import warnings
from typing import Any

from torch import nn

from .._arguments import check_module, check_rate
from .._errors import InputError
from .activations import PACTActivation
from .base import Quantizer
from .layers import QuantLayer


def _group_of(student: nn.Module) -> dict[int, str]:
    """Return the group of every quantizer parameter by id."""
    groups: dict[int, str] = {}
    for module in student.modules():
        if isinstance(module, Quantizer):
            name = "model" if module.flavour == "mqbench" else "quantizer"
            groups |= {id(p): name for p in module.parameters()}
        if isinstance(module, QuantLayer) and module.output_scale is not None:
            groups[id(module.output_scale)] = "quantizer"
    pacts = [m for m in student.modules() if isinstance(m, PACTActivation)]
    return groups | {id(m.alpha): "alpha" for m in pacts if m.flavour == "paper"}


def param_groups(
    student: nn.Module,
    lr: float,
    weight_decay: float,
    quantizer_lr: float | None = None,
    alpha_decay: float | None = None,
) -> list[dict[str, Any]]:
    """Split the parameters for an optimizer: the model's, the quantizers', PACT's alphas.

    Steps, ranges and output scales get no weight decay; PACT's alpha decays like the weights
    ([PACT] section 3), or by ``alpha_decay``. ``quantizer_lr`` is the learning rate of both
    quantizer groups, None for ``lr``. Empty groups are left out. Quantizers of MQBench's flavour
    have no group: its runs have one optimizer, so their steps train with the model's learning rate
    and weight decay; its PACT's alphas lie there, too, and get no gradient. A warning says so where
    no weight would train, as in a student made of a teacher that was frozen before.

    Raises:
        InputError: no model, a rate that is no finite number from 0 on, or no parameter that
            requires a gradient.
    """
    check_module("student", student)
    rate = lr if quantizer_lr is None else quantizer_lr
    decay = weight_decay if alpha_decay is None else alpha_decay
    given = {"lr": lr, "weight_decay": weight_decay, "quantizer_lr": rate, "alpha_decay": decay}
    for name, value in given.items():
        check_rate(name, value)
    groups: dict[str, dict[str, Any]] = {
        "model": {"params": [], "lr": lr, "weight_decay": weight_decay},
        "quantizer": {"params": [], "lr": rate, "weight_decay": 0.0},
        "alpha": {"params": [], "lr": rate, "weight_decay": decay},
    }
    group_of = _group_of(student)
    for parameter in student.parameters():
        groups[group_of.get(id(parameter), "model")]["params"].append(parameter)
    weights = [p for p in student.parameters() if id(p) not in group_of]
    _check_trainable(groups, any(p.requires_grad for p in weights))
    return [group | {"name": name} for name, group in groups.items() if group["params"]]


def _check_trainable(groups: dict[str, dict[str, Any]], weights_train: bool) -> None:
    if not any(p.requires_grad for group in groups.values() for p in group["params"]):
        raise InputError(
            "student: no parameter requires a gradient, so nothing would train; call"
            " requires_grad_(True) on it"
        )
    if not weights_train:
        warnings.warn(
            "param_groups: no weight requires a gradient, so only the quantizers would train; a"
            " student of a frozen teacher is frozen, too: call student.requires_grad_(True)",
            stacklevel=3,
        )
