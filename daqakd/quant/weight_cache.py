"""The weight cache: small weights of a model are quantized together, once per forward pass.

``quantize()`` hooks it to the model it returns. Before a forward pass of that model it quantizes
the weights by the ``*_many`` ops and leaves every layer its own. The layer uses it unless a source
has changed in between, and quantizes its weight itself otherwise: when it is called alone, under
``torch.compile``, or inside a checkpoint, whose second pass finds no cached weight; where one
surrounds the whole model, nothing is cached in either pass. Layers with
forward pre-hooks of their own take no part, because these may change the weight after it was read.
"""

import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..backends import together_below
from .activation_cache import ActivationCache
from .flags import read_flags, same_state, version_of
from .weights import WeightQuantizer


def recording_hooks() -> bool:
    """Return whether saved tensors go through hooks, as in checkpointing and offloading."""
    return torch._C._autograd._top_saved_tensors_default_hooks(False) is not None


def _is_trackable(source: Tensor) -> bool:
    """Return whether a change would be noticed; one sharded over processes is made whole later."""
    return type(source) in (Tensor, nn.Parameter) and not source.is_inference()


class CachedWeight:
    """One layer's quantized weight, valid in this forward pass, thread and state of its sources."""

    def __init__(self, value: Tensor, sources: Sequence[Tensor]) -> None:
        self.value, self.sources = value, sources
        self.versions = [version_of(source) for source in sources]
        self.thread = threading.get_ident()
        self.refused = False

    def get(self, sources: Sequence[Tensor]) -> Tensor | None:
        """Return the value, or None where the layer must quantize its weight itself."""
        if recording_hooks() or (self.value.requires_grad and not torch.is_grad_enabled()):
            self.refused = True
            return None
        if self.thread != threading.get_ident():
            return None
        same = all(map(same_state, sources, self.sources, self.versions))
        return self.value if same else None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Return None: a copied layer takes no part in this forward pass."""


class WeightCache:
    """Quantizes the layers' weights together before each forward pass of the model.

    A layer that had to refuse its cached weight, because a checkpoint surrounds it, is left out
    from then on.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        self.layers = list(layers)

    def attach(self, model: nn.Module) -> None:
        """Register the hooks on ``model``."""
        model.register_forward_pre_hook(self._before)
        model.register_forward_hook(self._after, always_call=True)

    @staticmethod
    def detach(model: nn.Module) -> None:
        """Remove the hooks of every weight cache from ``model`` and its submodules."""
        for module in model.modules():
            for hooks in (module._forward_pre_hooks, module._forward_hooks):
                for key, hook in list(hooks.items()):
                    if isinstance(getattr(hook, "__self__", None), WeightCache):
                        del hooks[key]
                        module._forward_hooks_always_called.pop(key, None)

    def _before(self, model: nn.Module, args: Any) -> None:
        if torch.compiler.is_compiling() or getattr(model, "_is_replica", False):
            return
        read_flags(x.act_quantizer for x in self.layers if x.act_quantizer is not None)
        if recording_hooks():
            return
        cache = ActivationCache()
        for layer in self.layers:
            layer.__dict__["activation_cache"] = cache
        for group in self._groups():
            self._fill(group)

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if torch.compiler.is_compiling() or getattr(model, "_is_replica", False):
            return
        for layer in self.layers:
            layer.__dict__["activation_cache"] = None
        weights = [layer.cached_weight for layer in self.layers]
        for layer in self.layers:
            layer.__dict__["cached_weight"] = None
        pairs = zip(self.layers, weights, strict=True)
        self.layers = [layer for layer, weight in pairs if weight is None or not weight.refused]

    def _groups(self) -> list[list[Any]]:
        """Return the layers whose small weights one call can quantize."""
        groups: dict[Any, list[Any]] = defaultdict(list)
        for layer in self.layers:
            weight, quantizer = layer.weight, layer.weight_quantizer
            if quantizer is None or layer._forward_pre_hooks:
                continue
            if not all(map(_is_trackable, layer.weight_sources())):
                continue
            if weight.numel() < together_below(weight):
                key = type(quantizer), quantizer.common_settings(), weight.dtype, weight.device
                groups[key].append(layer)
        return [group for group in groups.values() if len(group) > 1]

    @staticmethod
    def _fill(group: list[Any]) -> None:
        quantizers: list[WeightQuantizer] = [layer.weight_quantizer for layer in group]
        weights = [layer.weight for layer in group]
        values = quantizers[0].quantize_many(quantizers, weights)
        for layer, value in zip(group, values, strict=True):
            layer.__dict__["cached_weight"] = CachedWeight(value, layer.weight_sources())
