"""Which layers run in a pass, in which order, and how many multiply-adds they do."""

from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from .attention import QuantProjection
from .kinds import kind_of, widths_of
from .layers import QuantLayer
from .placed import PlacedOperation
from .selection import candidates


def counted_layers(student: nn.Module) -> list[tuple[str, nn.Module]]:
    """Return the layers whose calls tell their operations, quantized or not."""
    found = [(name, layer) for name, layer, _ in candidates(student)]
    whole = [(name, layer) for name, layer in found if not isinstance(layer, nn.MultiheadAttention)]
    inner = [(n, m) for n, m in student.named_modules() if isinstance(m, QuantProjection)]
    return whole + inner


class Operations:
    """Counts the whole output of every call: layers used twice, tokens folded into the batch."""

    def __init__(self, layers: Iterable[tuple[str, nn.Module]]) -> None:
        self.layers = dict(layers)
        self.names = {id(layer): name for name, layer in self.layers.items()}
        self.counts: dict[str, int] = {}  # in the order of the first calls
        self.handles: list[Any] = []

    def watch(self, names: Iterable[str] | None = None) -> None:
        """Begin to count the calls of all layers, or of those named."""
        self.stop()
        watched = self.layers if names is None else names
        self.handles = [
            self.layers[name].register_forward_hook(self._count, with_kwargs=True)
            for name in watched
        ]

    def stop(self) -> None:
        """End counting."""
        for handle in self.handles:
            handle.remove()

    def _count(self, layer: Any, args: Any, kwargs: Any, out: Any) -> None:
        name = self.names[id(layer)]
        kind = layer if isinstance(layer, PlacedOperation | QuantLayer) else kind_of(layer)
        x: Any = next(iter((*args, *kwargs.values())), None)
        made = [y for y in (out if isinstance(out, tuple) else (out,)) if isinstance(y, Tensor)]
        count = 0
        if kind is not None and isinstance(x, Tensor):
            count = sum(kind.multiply_adds(layer, x, y) for y in made)
        self.counts[name] = self.counts.get(name, 0) + count

    def never_ran(self) -> list[str]:
        """Return the quantized layers without a call."""
        quantized = (name for name, layer in self.layers.items() if isinstance(layer, QuantLayer))
        return [name for name in quantized if name not in self.counts]

    def write(self, samples: int) -> None:
        """Note multiply-adds of one sample, and the place in the order of calls, at each layer."""
        for place, (name, count) in enumerate(self.counts.items()):
            layer, macs = self.layers[name], round(count / samples)
            if "weight_bits" in widths_of(layer):
                owner = vars(layer).get("owner", layer)  # of an attention's projection
                owner.__dict__["place_in_pass"] = place
            if "macs" in layer._buffers:
                layer.get_buffer("macs").fill_(macs)
            else:
                layer.__dict__["counted_macs"] = macs
