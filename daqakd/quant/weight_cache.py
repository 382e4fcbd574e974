"""The weight cache: small weights of a model are quantized together, once per forward pass.

``quantize()`` hooks it to the model it returns. Before a forward pass of that model it quantizes
the weights by the ``*_many`` ops and leaves every layer its own. The layer uses it unless a source
has changed in between, and quantizes its weight itself otherwise: when it is called alone, under
``torch.compile``, or inside a checkpoint, whose second pass finds no cached weight; where one
surrounds the whole model, nothing is cached in either pass. Layers with
forward pre-hooks of their own take no part, because these may change the weight after it was read;
nor do those that are passing, which do not quantize.
"""

from collections import defaultdict
from collections.abc import Iterable
from threading import get_ident
from typing import Any

from torch import Tensor, is_grad_enabled, nn
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch.compiler import is_compiling

from ..backends import together_below
from ..functional._many import Together
from .activation_cache import ActivationCache, layers_that_share
from .base import ActivationQuantizer
from .flags import read_flags
from .weights import WeightQuantizer


def recording_hooks() -> bool:
    """Return whether saved tensors go through hooks, as in checkpointing and offloading."""
    return _top_saved_tensors_default_hooks(False) is not None


def _is_trackable(source: Tensor) -> bool:
    """Return whether a change would be noticed; one sharded over processes is made whole later."""
    return type(source) in (Tensor, nn.Parameter) and not source.is_inference()


def _is_apart(layer: Any) -> bool:
    """Return whether a layer takes no part: one with hooks before it, or that does not quantize."""
    owner = layer.__dict__.get("owner", layer)  # of an attention's projection
    return bool(layer._forward_pre_hooks or owner._forward_pre_hooks) or layer.passing


Place = tuple[dict[str, Any], str, Any]  # a module's parameters or children, a name, what is there


class _Member:
    """What a layer's group was chosen by: while nothing of it changed, the choice stays."""

    __slots__ = (
        *("apart", "device", "dtype", "layer", "places", "quantizer", "settings", "sources"),
        *("tensors", "weight"),
    )

    def __init__(self, layer: Any) -> None:
        self.layer, self.apart = layer, _is_apart(layer)
        store, name = layer.weight_place()
        self.weight = weight = store.get(name)  # None: computed by somebody
        self.dtype, self.device = getattr(weight, "dtype", None), getattr(weight, "device", None)
        self.quantizer = quantizer = layer._modules.get("weight_quantizer")
        self.sources: list[Place] = []
        self.settings: object = None
        if weight is not None and isinstance(quantizer, WeightQuantizer):
            own = quantizer._parameters
            self.sources = [(own, key, own.get(key)) for key in quantizer.op_parameters]
            self.sources = [(store, name, weight), *self.sources]
            self.settings = quantizer.settings()
        self.tensors: list[Any] = [source for _, _, source in self.sources]
        children = ("weight_quantizer", "act_quantizer")
        self.places = [(layer._modules, name, layer._modules.get(name)) for name in children]
        self.places += self.sources or [(store, name, weight)]

    def is_current(self) -> bool:
        """Return whether the layer has the same weight, quantizers and settings still."""
        for store, name, before in self.places:
            if store.get(name) is not before:
                return False
        weight = self.weight
        if weight is not None and (weight.dtype is not self.dtype or weight.device != self.device):
            return False
        return _is_apart(self.layer) is self.apart and (
            self.settings is None or self.quantizer.settings() == self.settings
        )

    def group(self) -> object:
        """Return a key that the layers of one call share, or None."""
        if self.apart or not self.sources or not all(map(_is_trackable, self.tensors)):
            return None
        if not self.quantizer.joins:
            return None
        if self.weight.numel() >= together_below(self.weight):
            return None
        return type(self.quantizer), self.quantizer.common_settings(), self.dtype, self.device


class CachedWeight:
    """One layer's quantized weight, valid in this forward pass, thread and state of its sources."""

    __slots__ = ("member", "refused", "thread", "value", "versions")

    def __init__(self, value: Tensor, member: _Member, thread: int) -> None:
        self.value, self.member, self.thread, self.refused = value, member, thread, False
        self.versions = [source._version for source in member.tensors]

    def get(self) -> Tensor | None:
        """Return the weight to compute with, or None where the layer must quantize it itself."""
        if recording_hooks() or (self.value.requires_grad and not is_grad_enabled()):
            self.refused = True
            return None
        member = self.member
        if member.layer._modules.get("weight_quantizer") is not member.quantizer:
            return None
        for (store, name, before), version in zip(member.sources, self.versions, strict=True):
            if before._version != version or store.get(name) is not before:
                return None
        same_thread = self.thread == get_ident()
        return member.quantizer.finish(self.value) if same_thread else None

    def __deepcopy__(self, memo: dict[int, Any]) -> None:
        """Return None: a copied layer takes no part in this forward pass."""


class WeightCache:
    """Quantizes the layers' weights together before each forward pass of the model.

    A layer that had to refuse its cached weight, because a checkpoint surrounds it, is left out
    from then on.
    """

    def __init__(self, layers: Iterable[Any]) -> None:
        self.layers = list(layers)
        self.members: list[_Member] = []
        self.calls: list[tuple[Together, list[_Member]]] = []
        self.sharing: list[Any] = []  # layers
        self.flagged: list[ActivationQuantizer] = []

    def __reduce__(self) -> tuple[Any, ...]:
        """Be copied and pickled without what was made of the layers."""
        return WeightCache, (self.layers,)

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
        if is_compiling() or getattr(model, "_is_replica", False):
            return
        if not (self.members and all(member.is_current() for member in self.members)):
            self._make_calls()
        read_flags(self.flagged)
        if recording_hooks():
            return
        cache, thread = ActivationCache(), get_ident()
        for layer in self.sharing:
            layer.__dict__["activation_cache"] = cache
        for call, members in self.calls:
            for member, value in zip(members, call(), strict=True):
                member.layer.__dict__["cached_weight"] = CachedWeight(value, member, thread)

    def _after(self, model: nn.Module, args: Any, output: Any) -> None:
        if is_compiling() or getattr(model, "_is_replica", False):
            return
        refused = []
        for layer in self.layers:
            own = layer.__dict__
            weight = own.get("cached_weight")
            if weight is not None and weight.refused:
                refused.append(layer)
            own["cached_weight"] = own["activation_cache"] = None
        if refused:
            self.layers = [layer for layer in self.layers if layer not in refused]
            self.members = []

    def _make_calls(self) -> None:
        """Group the layers whose small weights one call can quantize."""
        members = [_Member(layer) for layer in self.layers]
        self.sharing = layers_that_share(self.layers)
        quantizers = [layer._modules.get("act_quantizer") for layer in self.layers]
        self.flagged = [quantizer for quantizer in quantizers if quantizer is not None]
        groups: dict[Any, list[_Member]] = defaultdict(list)
        for member in members:
            key = member.group()
            if key is not None:
                groups[key].append(member)
        self.calls = [(_call(found), found) for found in groups.values() if len(found) > 1]
        self.members = members  # last: another thread may ask whether they are current


def _call(members: list[_Member]) -> Together:
    """Return the call that quantizes the weights of one group."""
    quantizers = [member.quantizer for member in members]
    call: Together = quantizers[0].together(quantizers, [member.weight for member in members])
    return call
