"""The Triton backend: adapters from the ops to ``daqakd.kernels``, one module per stem."""

import torch

from ..._ops import INPUT_DTYPES, implemented
from . import (
    augment,
    bn_act_quant,
    cmi,
    codes,
    dorefa,
    ewgs,
    kd_loss,
    lsq,
    lsqplus,
    many,
    pact,
    seq,
)
from ._launch import DEVICES, INSTALLED, INTERPRETED

__all__ = [
    "INSTALLED",
    "INTERPRETED",
    "augment",
    "bn_act_quant",
    "can_run",
    "cmi",
    "codes",
    "dorefa",
    "ewgs",
    "kd_loss",
    "lsq",
    "lsqplus",
    "many",
    "pact",
    "seq",
]

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
# Asked once, after the adapters above: torch.compile reads it as a constant.
IMPLEMENTED = {device: implemented("triton", device) for device in DEVICES}


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when a Triton kernel can run ``op``, else the reason in one sentence."""
    if not INSTALLED:
        return "triton is not installed"
    if device not in IMPLEMENTED:
        return f"the tensors are on {device}, Triton runs on cuda"
    if op not in IMPLEMENTED[device]:
        return f"daqakd.kernels has no {op} kernel in this version"
    accepted = INPUT_DTYPES.get(op, DTYPES)
    if dtype not in accepted:
        known = ", ".join(str(known).removeprefix("torch.") for known in accepted)
        return f"the Triton kernels take {known}, not {dtype}"
    return None
