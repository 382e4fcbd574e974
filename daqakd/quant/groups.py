"""``param_groups``: separate optimizer settings for quantizer parameters."""

from typing import Any

from torch import nn

from .activations import PACTActivation
from .base import Quantizer
from .layers import QuantLayer


def param_groups(
    student: nn.Module, lr: float, weight_decay: float, quantizer_lr: float | None = None
) -> list[dict[str, Any]]:
    """Split the parameters for an optimizer: the model's, the quantizers', PACT's alphas.

    Steps, ranges and output scales get no weight decay; PACT's alpha decays like the weights
    ([PACT] section 3). ``quantizer_lr`` is the learning rate of both quantizer groups, None for
    ``lr``. Empty groups are left out.
    """
    alphas = {id(m.alpha) for m in student.modules() if isinstance(m, PACTActivation)}
    steps = {
        id(p) for m in student.modules() if isinstance(m, Quantizer) for p in m.parameters()
    } - alphas
    steps |= {
        id(m.output_scale)
        for m in student.modules()
        if isinstance(m, QuantLayer) and m.output_scale is not None
    }
    rate = lr if quantizer_lr is None else quantizer_lr
    settings = {
        "model": (lr, weight_decay),
        "quantizer": (rate, 0.0),
        "alpha": (rate, weight_decay),
    }
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in settings}
    for parameter in student.parameters():
        key = id(parameter)
        groups["alpha" if key in alphas else "quantizer" if key in steps else "model"].append(
            parameter
        )
    return [
        {"params": params, "lr": settings[name][0], "weight_decay": settings[name][1], "name": name}
        for name, params in groups.items()
        if params
    ]
