"""The rows of ``summary``: one for each layer, operation and other weight of a student."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .attention import QuantMultiheadAttention
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
    ``bit_ops`` is ``macs * weight_bits * act_bits``; ``weight_levels`` are None where they are
    ``2^weight_bits``. Layers in full precision keep their ``macs`` in this process only, quantized
    ones in the ``state_dict``.
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
    weight_levels: int | None = None


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
        weight_levels=None if weight is None or weight.has_all_levels else weight.num_levels,
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


def _reasons(student: nn.Module) -> dict[str, str | None]:
    """Return why layers with a quantized form stay whole, by name; None where nothing hinders."""
    found = {name: reason for name, _, reason in candidates(student)}
    for name, module in student.named_modules():
        if type(module) is nn.MultiheadAttention and found[name] is None:
            inner = f"{name}.out_proj" if name else "out_proj"
            found[inner] = "its nn.MultiheadAttention stays whole and reads its weight directly"
    return found


def rows_of(student: nn.Module) -> list[LayerSummary]:
    """Return all rows, in order of registration."""
    reasons, owners = _reasons(student), dict[int, str]()
    rows: list[LayerSummary] = []
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
    return rows
