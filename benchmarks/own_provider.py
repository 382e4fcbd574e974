"""An example of a provider of one's own: ``daqakd bench --op lsq --provider
benchmarks.own_provider:providers``.

A package that brings providers names the same function in its ``pyproject.toml``::

    [project.entry-points."daqakd.bench_providers"]
    mine = "benchmarks.own_provider:providers"
"""

import torch
from torch import Tensor

from daqakd.bench.quantizer import BITS, broadcast


def my_lsq(x: Tensor, step: Tensor, form: str) -> Tensor:
    """Quantize to signed codes of 4 bits; ``form`` is ``"tensor"`` or ``"channel"``."""
    s = broadcast(step, form).to(x.dtype)
    v = x / s
    codes = v.clamp(-(2 ** (BITS - 1)), 2 ** (BITS - 1) - 1)
    return (codes + (torch.round(codes) - codes).detach()) * s


def providers(op: str, device: str):
    """Return what is to be timed for an op, by name."""
    return {"mine": my_lsq} if op == "lsq" else {}
