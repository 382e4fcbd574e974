"""``summary``: what is quantized, how, and what it costs."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .layers import QuantLayer
from .selection import candidates

FULL_BITS = 32


@dataclass(frozen=True)
class LayerSummary:
    """One Conv2d or Linear layer.

    Steps are distances of neighbouring levels (mean over channels); ``macs`` are multiply-adds of
    one sample, None before calibration; ``bytes`` is the packed weight; ``bit_ops`` is
    ``macs * weight_bits * act_bits``.
    """

    name: str
    kind: str
    weight_bits: int
    act_bits: int
    method: str
    granularity: str
    weight_step: float | None
    act_step: float | None
    macs: int | None
    bytes: int
    bit_ops: int | None
    note: str


@dataclass(frozen=True)
class Summary:
    """All layers; ``str()`` gives a table, ``records()`` plain dictionaries."""

    layers: list[LayerSummary]

    def records(self) -> list[dict[str, Any]]:
        """Return one dictionary per layer."""
        return [asdict(layer) for layer in self.layers]

    @property
    def bytes(self) -> int:
        """Packed size of all listed weights."""
        return sum(layer.bytes for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-adds of one sample where known."""
        return sum(layer.macs or 0 for layer in self.layers)

    @property
    def bit_ops(self) -> int:
        """Bit operations of one sample where known."""
        return sum(layer.bit_ops or 0 for layer in self.layers)

    def __str__(self) -> str:
        heads = ["layer", "kind", "W", "A", "method", "per", "W step", "A step", "MACs", "bytes"]
        rows = [heads, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        notes = [f"{layer.name}: {layer.note}" for layer in self.layers if layer.note]
        total = f"total: {self.bytes:,} bytes, {self.macs:,} MACs, {self.bit_ops:,} BitOps"
        return "\n".join([line.rstrip() for line in lines] + [total, *notes])


def _cells(layer: LayerSummary) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    return [
        layer.name,
        layer.kind,
        str(layer.weight_bits),
        str(layer.act_bits),
        layer.method,
        layer.granularity,
        number(layer.weight_step, ".3g"),
        number(layer.act_step, ".3g"),
        number(layer.macs, ","),
        f"{layer.bytes:,}",
    ]


def _quantized(name: str, layer: QuantLayer) -> LayerSummary:
    weight, act = layer.weight_quantizer, layer.act_quantizer
    weight_bits = FULL_BITS if weight is None else weight.bits
    act_bits = FULL_BITS if act is None else act.bits
    macs = int(layer.macs.item()) or None
    return LayerSummary(
        name=name,
        kind=layer.plain.__name__,
        weight_bits=weight_bits,
        act_bits=act_bits,
        method="/".join("fp" if q is None else q.method for q in (weight, act)),
        granularity="-" if weight is None else weight.granularity,
        weight_step=None if weight is None else weight.step_size(),
        act_step=None if act is None else act.step_size(),
        macs=macs,
        bytes=(layer.weight.numel() * weight_bits + 7) // 8,
        bit_ops=None if macs is None else macs * weight_bits * act_bits,
        note="",
    )


def _unquantized(name: str, layer: Any, reason: str | None) -> LayerSummary:
    return LayerSummary(
        name=name,
        kind=type(layer).__name__,
        weight_bits=FULL_BITS,
        act_bits=FULL_BITS,
        method="fp",
        granularity="-",
        weight_step=None,
        act_step=None,
        macs=None,
        bytes=layer.weight.numel() * FULL_BITS // 8,
        bit_ops=None,
        note="not quantized: " + (reason or "left in full precision"),
    )


def summary(student: nn.Module) -> Summary:
    """Describe every Conv2d and Linear layer: bits, granularity, step, MACs, size, BitOps.

    Layers in full precision are listed with the reason. Reads parameters back from the device.
    """
    layers = []
    for name, layer, reason in candidates(student):
        if isinstance(layer, QuantLayer):
            layers.append(_quantized(name, layer))
        else:
            layers.append(_unquantized(name, layer, reason))
    return Summary(layers)
