"""``summary``: what is quantized, how, and what it costs."""

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from .._arguments import check_module
from .attention import QuantMultiheadAttention
from .fusion.report import FusionSummary, fusion_summary
from .kinds import looks_up
from .layers import QuantLayer
from .placed import PlacedOperation, QuantAdd
from .selection import candidates
from .spec import FULL_BITS

# types without a quantized form, and why
WHOLE: dict[tuple[type, ...], str] = {
    (nn.RNNBase, nn.RNNCellBase): "hands its weights and its state to one op for all gates",
    (nn.EmbeddingBag,): "looks up and reduces in one op, which returns sums of weights",
    (nn.Bilinear,): "multiplies two inputs by its weight in one op",
}


@dataclass(frozen=True)
class LayerSummary:
    """One layer of a type that is quantized, or another weight of two or more dimensions.

    Steps are distances of neighbouring levels (mean over channels); ``macs`` are multiply-adds of
    one sample (the whole output of every call, divided by the first dimension of the calibration
    batch), None before calibration and where no call was seen: layers whose weight a parent reads,
    recurrent layers, attention; ``bytes`` is the packed weight;
    ``bit_ops`` is ``macs * weight_bits * act_bits``. Layers in full precision keep their ``macs``
    in this process only, quantized ones in the ``state_dict``.
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


def _placed(name: str, operation: PlacedOperation) -> LayerSummary:
    """Return the row of an operation that the user placed; its step is the mean of both inputs'."""
    found = (operation.left.act_quantizer, operation.right.act_quantizer)
    quantizers = [q for q in found if q is not None]
    bits = quantizers[0].bits if quantizers else FULL_BITS
    steps = [step for q in quantizers if (step := q.step_size()) is not None]
    macs = _counted(operation)
    return LayerSummary(
        name=name,
        kind=type(operation).__name__,
        weight_bits=FULL_BITS,
        act_bits=bits,
        method=f"fp/{quantizers[0].method}" if quantizers else "fp",
        granularity="-",
        weight_step=None,
        act_step=sum(steps) / len(steps) if steps else None,
        macs=macs,
        bytes=0,
        bit_ops=None if macs is None else macs * bits * bits,
        note="" if quantizers else "not quantized: left in full precision",
    )


def _counted(operation: PlacedOperation) -> int | None:
    """Return the multiply-adds of an operation; additions have none."""
    if isinstance(operation, QuantAdd):
        return 0
    buffer, own = operation._buffers.get("macs"), vars(operation).get("counted_macs")
    return own if buffer is None else int(buffer.item()) or None


def _unquantized(name: str, layer: Any, reason: str | None, owners: dict[int, str]) -> LayerSummary:
    """Return the row of a layer in full precision; a weight listed already takes no more bytes."""
    macs, weight = getattr(layer, "counted_macs", None), layer.weight
    why = reason or "left in full precision" + ("; see embedding_bits=" if looks_up(layer) else "")
    own = weight is layer._parameters.get("weight")
    owner = owners.setdefault(id(weight), name) if own else name
    if owner != name:
        why += f"; the weight is that of {owner}"
    return LayerSummary(
        name=name,
        kind=type(layer).__name__,
        weight_bits=FULL_BITS,
        act_bits=FULL_BITS,
        method="fp",
        granularity="-",
        weight_step=None,
        act_step=None,
        macs=macs,
        bytes=weight.numel() * FULL_BITS // 8 if owner == name else 0,
        bit_ops=None if macs is None else macs * FULL_BITS * FULL_BITS,
        note=f"not quantized: {why}",
    )


def _other(name: str, kind: str, count: int, reason: str, macs: int | None = None) -> LayerSummary:
    """Return the row of a weight that no layer of such a type holds."""
    return LayerSummary(
        name=name,
        kind=kind,
        weight_bits=FULL_BITS,
        act_bits=FULL_BITS,
        method="fp",
        granularity="-",
        weight_step=None,
        act_step=None,
        macs=macs,
        bytes=count * FULL_BITS // 8,
        bit_ops=None if macs is None else macs * FULL_BITS * FULL_BITS,
        note="not quantized: " + reason,
    )


def _why_whole(module: nn.Module) -> str:
    """Return why a module that has no quantized form is in full precision."""
    kind = type(module).__name__
    for types, reason in WHOLE.items():
        if isinstance(module, types):
            return f"{kind} {reason}"
    return f"{kind} is of no type that is quantized"


def _attention(
    name: str, module: nn.MultiheadAttention, reason: str | None, owners: dict[int, str]
) -> Iterator[LayerSummary]:
    """Yield the rows of what an attention computes with in full precision, past its children."""
    if not isinstance(module, QuantMultiheadAttention):
        yield from _other_weights(name, module, owners, reason or "left in full precision")
        return
    projected = {id(projection.weight) for projection in module.projections()}
    why = "nn.MultiheadAttention appends it to keys or values"
    yield from _other_weights(name, module, owners, why, projected)


def _other_weights(
    name: str,
    module: nn.Module,
    owners: dict[int, str],
    why: str,
    listed: Collection[int] = (),
) -> Iterator[LayerSummary]:
    """Yield the rows of a module's own weights; one that is listed already takes no more bytes."""
    kind = type(module).__name__
    for key, weight in module._parameters.items():
        if weight is None or weight.dim() < 2 or id(weight) in listed:
            continue
        own = name if key == "weight" else f"{name}.{key}" if name else key
        macs = vars(module).get("counted_macs") if key == "weight" else None
        owner = owners.setdefault(id(weight), own)
        if owner == own:
            yield _other(own, kind, weight.numel(), why, macs)
        else:
            yield _other(own, kind, 0, f"{why}; the weight is that of {owner}", macs)


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
    reasons = {name: reason for name, _, reason in candidates(student)}
    for name, module in student.named_modules():
        if type(module) is nn.MultiheadAttention and reasons[name] is None:
            inner = f"{name}.out_proj" if name else "out_proj"
            reasons[inner] = "its nn.MultiheadAttention stays whole and reads its weight directly"
    rows: list[LayerSummary] = []
    owners: dict[int, str] = {}
    for name, module in student.named_modules():
        if isinstance(module, QuantLayer):
            rows.append(_quantized(name, module))
        elif isinstance(module, PlacedOperation):
            rows.append(_placed(name, module))
        elif isinstance(module, nn.MultiheadAttention):
            rows.extend(_attention(name, module, reasons.get(name), owners))
        elif name in reasons:
            rows.append(_unquantized(name, module, reasons[name], owners))
        elif name.partition(".parametrizations.")[0] not in reasons:  # its weight is made of these
            rows.extend(_other_weights(name, module, owners, _why_whole(module)))
    listed = [(name, layer) for name, layer in student.named_modules() if name in reasons]
    return Summary(rows, _taken(listed), fusion_summary(student))
