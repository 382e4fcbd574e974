"""The weight bank: all small weights of a model quantized together, once per forward pass.

``quantize()`` hooks it to the model it returns. Before a forward pass of that model it quantizes
the weights by the ``*_many`` ops and hands every layer its own; a layer takes it unless something
changed in between, and quantizes by itself otherwise: when it is called alone, under
``torch.compile``, or inside a checkpoint, whose second pass could not take it again. Layers with
forward pre-hooks of their own stay out: these may change the weight after the bank has read it.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import together_below
from .sharing import SharedInputs
from .weights import WeightQuantizer


def recording_hooks() -> bool:
    """Return whether saved tensors go through hooks: checkpointing, offloading."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


class Banked:
    """One layer's quantized weight of this forward pass."""

    def __init__(self, value: Tensor, sources: Sequence[Tensor]) -> None:
        self.value, self.sources = value, sources
        self.versions = [source._version for source in sources]
        self.thread = threading.get_ident()
        self.unfit = False

    def take(self, sources: Sequence[Tensor]) -> Tensor | None:
        """Return the value, or None where the layer must quantize by itself."""
        if recording_hooks() or (self.value.requires_grad and not torch.is_grad_enabled()):
            self.unfit = True
            return None
        if self.thread != threading.get_ident():
            return None
        now = zip(sources, self.sources, self.versions, strict=True)
        same = all(a is b and a._version == version for a, b, version in now)
        return self.value if same else None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Belong to one forward pass only: a copied layer has none."""


class WeightBank:
    """Quantizes the layers' weights together before each forward pass of the model.

    A layer that could not take its weight, because a checkpoint surrounds it, leaves the bank.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        self.layers = list(layers)

    def attach(self, model: nn.Module) -> None:
        """Follow the forward passes of ``model``."""
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after, always_call=True)

    @staticmethod
    def detach(model: nn.Module) -> None:
        """Remove the banks of ``model`` and its parts."""
        for module in model.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key, hook in list(hooks.items()):
                    if isinstance(getattr(hook, "__self__", None), WeightBank):
                        del hooks[key]
                        module._forward_hooks_always_called.pop(key, None)

    def _before(self, model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or getattr(model, "_is_replica", False):
            return
        shared = SharedInputs()
        for layer in self.layers:
            layer.__dict__["shared"] = shared
        for group in self._groups():
            self._fill(group)

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or getattr(model, "_is_replica", False):
            return
        for layer in self.layers:
            layer.__dict__["shared"] = None
        unfit = [layer for layer in self.layers if layer.banked and layer.banked.unfit]
        for layer in self.layers:
            layer.__dict__["banked"] = None
        self.layers = [layer for layer in self.layers if layer not in unfit]

    def _groups(self) -> list[list[Any]]:
        """Return the layers whose small weights one call can take."""
        groups: dict[Any, list[Any]] = defaultdict(list)
        for layer in self.layers:
            weight, quantizer = layer.weight, layer.weight_quantizer
            if quantizer is None or weight.is_inference() or layer._forward_pre_hooks:
                continue
            if weight.numel() < together_below(weight):
                key = type(quantizer), quantizer.shared_settings(), weight.dtype, weight.device
                groups[key].append(layer)
        return [group for group in groups.values() if len(group) > 1]

    @staticmethod
    def _fill(group: list[Any]) -> None:
        quantizers: list[WeightQuantizer] = [layer.weight_quantizer for layer in group]
        weights = [layer.weight for layer in group]
        values = quantizers[0].quantize_many(quantizers, weights)
        for layer, value in zip(group, values, strict=True):
            layer.__dict__["banked"] = Banked(value, layer.weight_sources())
