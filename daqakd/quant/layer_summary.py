"""``summary``: what is quantized, how, and what it costs."""

from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .._arguments import check_module
from .fusion.report import FusionSummary, fusion_summary
from .layer_rows import LayerSummary, rows_of
from .selection import candidates


@dataclass(frozen=True)
class Summary:
    """All layers; ``str()`` gives a table, ``records()`` plain dictionaries."""

    layers: list[LayerSummary]
    first_last: str = ""
    """Which layers were taken as first and last, empty where they are treated like the rest."""
    fusion: FusionSummary | None = None
    """What :func:`~daqakd.fuse` made one op; None of a student that is not fused."""

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

    @property
    def uncounted(self) -> list[str]:
        """Layers whose operations are not in the sums, once calibration has counted the others."""
        names = [x.name for x in self.layers if x.macs is None and "Embedding" not in x.kind]
        return names if self.macs else []

    def __str__(self) -> str:
        heads = ["layer", "kind", "W", "A", "method", "per", "W step", "A step", "MACs", "bytes"]
        rows = [heads, *(_cells(layer) for layer in self.layers)]
        widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(r, widths, strict=True)) for r in rows]
        notes = [f"{layer.name}: {layer.note}" for layer in self.layers if layer.note]
        total = f"total: {self.bytes:,} bytes, {self.macs:,} MACs, {self.bit_ops:,} BitOps"
        if left := self.uncounted:
            more = f" and {len(left) - 3} more" if len(left) > 3 else ""
            total += f"; without the operations of {', '.join(left[:3])}{more}, which were not seen"
        taken = [self.first_last] if self.first_last else []
        fusion = [] if self.fusion is None else self.fusion.lines()
        return "\n".join([line.rstrip() for line in lines] + [total, *taken, *notes, *fusion])


def _cells(layer: LayerSummary) -> list[str]:
    def number(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    levels = layer.weight_levels
    return [
        layer.name,
        layer.kind,
        f"{layer.weight_bits}{f' ({levels} levels)' if levels else ''}",
        str(layer.act_bits),
        layer.method,
        layer.granularity,
        number(layer.weight_step, ".3g"),
        number(layer.act_step, ".3g"),
        number(layer.macs, ","),
        f"{layer.bytes:,}",
    ]


def _taken(rows: list[tuple[str, nn.Module]]) -> str:
    """Return which layers were taken as first and last, and which ones ran so, where it differs."""
    taken = [(name, vars(x)["first_or_last"]) for name, x in rows if "first_or_last" in vars(x)]
    if not taken:
        return ""
    bits = "8 bits" if taken[0][1] == "8bit" else "full precision"
    text = f"first and last layer, by order of registration ({bits}): {taken[0][0]}, {taken[-1][0]}"
    ran = [(vars(x)["place_in_pass"], name) for name, x in rows if "place_in_pass" in vars(x)]
    ends = [min(ran)[1], max(ran)[1]] if ran else []
    if ran and ends != [taken[0][0], taken[-1][0]]:
        text += f"; by order of the calibration pass: {ends[0]}, {ends[1]} (see overrides=)"
    return text


def summary(student: nn.Module) -> Summary:
    """Describe every layer with weights: bits, granularity, step, MACs, size, BitOps.

    What is in full precision is listed with the reason: layers that could be quantized but stay
    whole, and all other weights of two or more dimensions (recurrent layers, positions). Reads
    parameters back from the device.
    """
    check_module("student", student)
    names = {name for name, _, _ in candidates(student)}
    listed = [(name, layer) for name, layer in student.named_modules() if name in names]
    return Summary(rows_of(student), _taken(listed), fusion_summary(student))
