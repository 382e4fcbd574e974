"""Activations with several consumers are quantized once, where their quantizers are the same."""

from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from .base import ActivationQuantizer
from .flags import same_state, version_of


class _Entry(NamedTuple):
    x: "ref[Tensor]"
    version: int | None  # of x
    with_grad: bool
    y: "ref[Tensor]"


class ActivationCache:
    """The quantized activations of one forward pass; only the latest is kept alive."""

    def __init__(self) -> None:
        self.entries: dict[tuple[int, object], _Entry] = {}
        self.latest: Tensor | None = None

    def quantize(self, quantizer: ActivationQuantizer, x: Tensor) -> Tensor:
        """Return ``quantizer(x)``, or what an equal quantizer made of the same ``x``."""
        key = id(x), quantizer.cache_key()
        entry = self.entries.get(key)
        if entry is not None and same_state(x, entry.x(), entry.version):
            y = entry.y()
            if y is not None and entry.with_grad == torch.is_grad_enabled():
                return y
        y = self.latest = quantizer(x)
        self.entries[key] = _Entry(ref(x), version_of(x), torch.is_grad_enabled(), ref(y))
        return y
