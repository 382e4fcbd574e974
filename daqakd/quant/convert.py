"""``quantize`` and ``dequantize``: from any module to a low-bit copy and back."""

import copy
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from .._errors import InputError, suggest, unknown
from ..functional import _checks
from .activations import DoReFaActivation, EWGSActivation, LSQActivation, PACTActivation
from .bank import WeightBank
from .base import ActivationQuantizer
from .layers import QuantConv2d, QuantLayer, QuantLinear
from .weights import DoReFaWeight, EWGSWeight, LSQWeight, WeightQuantizer

PAIRS = {
    "lsq": ("lsq", "lsq"),
    "pact": ("dorefa", "pact"),
    "dorefa": ("dorefa", "dorefa"),
    "ewgs": ("ewgs", "ewgs"),
}
WEIGHT_METHODS = ("dorefa", "ewgs", "lsq")
ACT_METHODS = ("dorefa", "ewgs", "lsq", "pact")
QUANTIZED: dict[type[nn.Module], type[QuantLayer]] = {
    nn.Conv2d: QuantConv2d,
    nn.Linear: QuantLinear,
}


@dataclass(frozen=True)
class LayerSpec:
    """How one layer is quantized; None bits leave that part in full precision."""

    weight_bits: int | None
    act_bits: int | None
    weight_method: str
    act_method: str
    per_channel: bool = False

    def check(self, where: str) -> None:
        """Raise InputError for bits or methods that do not exist; ``where`` says whose."""
        if self.weight_method not in WEIGHT_METHODS:
            raise unknown(f"weight method ({where})", self.weight_method, list(WEIGHT_METHODS))
        if self.act_method not in ACT_METHODS:
            raise unknown(f"activation method ({where})", self.act_method, list(ACT_METHODS))
        for name in ("weight_bits", "act_bits"):
            if (bits := getattr(self, name)) is not None:
                try:
                    _checks.bit_width(bits)
                except InputError as error:
                    raise InputError(f"{where}: {name}: {error}") from None
        if self.weight_method == "lsq" and self.weight_bits == 1:
            raise InputError(
                f"{where}: weight_bits=1 has no positive code for LSQ's signed weights;"
                " use 2 bits or more, or weight_method='dorefa' or 'ewgs'"
            )


def refusal(layer: nn.Module, inside_attention: bool) -> str | None:
    """Return why a Conv2d or Linear cannot be swapped, or None."""
    kind = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear
    if inside_attention:
        return "nn.MultiheadAttention reads its projections' weights directly"
    if type(layer).forward is not kind.forward:
        return f"{type(layer).__name__} has its own forward"
    if "weight" not in layer._parameters:
        return "its weight is computed by a parametrization"
    return None


def candidates(model: nn.Module) -> Iterator[tuple[str, nn.Module, str | None]]:
    """Yield every Conv2d and Linear once: name, layer, and the reason if it must stay whole."""
    attention: set[int] = set()
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            attention |= {id(inner) for inner in module.modules()}
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            yield name, module, refusal(module, id(module) in attention)


def _expand(patterns: Iterable[str], names: list[str], argument: str) -> dict[str, set[str]]:
    """Return the names each pattern matches; a pattern without a match is an error."""
    matched = {p: {n for n in names if fnmatchcase(n, p)} for p in patterns}
    for pattern, found in matched.items():
        if not found:
            inner = [f"{pattern}.*"] if any(n.startswith(f"{pattern}.") for n in names) else []
            hint = f" Did you mean {inner[0]!r}?" if inner else suggest(pattern, names)
            raise InputError(
                f"{argument}: {pattern!r} matches no Conv2d or Linear layer.{hint}"
                f" Layers: {', '.join(names[:6])}{', ...' if len(names) > 6 else ''}"
            )
    return matched


def _followed_by_batchnorm(model: nn.Module) -> set[int]:
    """Return the ids of layers whose next weighted module is a BatchNorm of their width."""
    found: set[int] = set()
    previous: Any = None
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            previous = module
        elif next(module.parameters(recurse=False), None) is not None:
            norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
            width = None if previous is None else previous.weight.shape[0]
            if norm and width == module.num_features:
                found.add(id(previous))
            previous = None
    return found


def _weight_quantizer(
    spec: LayerSpec, layer: nn.Module, rescale: bool, delta: float
) -> WeightQuantizer | None:
    if spec.weight_bits is None:
        return None
    weight = layer._parameters["weight"]
    assert weight is not None
    if spec.weight_method == "lsq":
        return LSQWeight(weight, spec.weight_bits, spec.per_channel)
    if spec.weight_method == "dorefa":
        return DoReFaWeight(weight, spec.weight_bits, rescale)
    return EWGSWeight(weight, spec.weight_bits, delta)


def _act_quantizer(
    spec: LayerSpec, pact_alpha: float | None, delta: float
) -> ActivationQuantizer | None:
    if spec.act_bits is None:
        return None
    if spec.act_method == "lsq":
        return LSQActivation(spec.act_bits)
    if spec.act_method == "pact":
        return PACTActivation(spec.act_bits, pact_alpha)
    if spec.act_method == "dorefa":
        return DoReFaActivation(spec.act_bits)
    return EWGSActivation(spec.act_bits, delta)


def _specs(
    base: LayerSpec,
    names: list[str],
    first_last: str,
    exclude: Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, LayerSpec]:
    """Return the spec of every layer to quantize; exclude beats overrides beats first_last."""
    if first_last not in ("8bit", "fp", "same"):
        raise unknown("first_last", first_last, ["8bit", "fp", "same"])
    specs = dict.fromkeys(names, base)
    for name in {names[0], names[-1]} if names and first_last != "same" else ():
        eight = 8 if first_last == "8bit" else None
        act_bits = None if base.act_bits is None else eight
        specs[name] = replace(base, weight_bits=eight, act_bits=act_bits)
    known = [f.name for f in fields(LayerSpec)]
    for pattern, found in _expand(overrides, names, "overrides").items():
        for key in overrides[pattern]:
            if key not in known:
                raise unknown(f"key in overrides[{pattern!r}]", key, known)
        for name in found:
            specs[name] = replace(specs[name], **overrides[pattern])
            specs[name].check(f"overrides[{pattern!r}]")
    dropped = set().union(*_expand(exclude, names, "exclude").values())
    return {n: s for n, s in specs.items() if n not in dropped}


def quantize(
    model: nn.Module,
    *,
    weight_bits: int | None,
    act_bits: int | None,
    method: str = "lsq",
    weight_method: str | None = None,
    act_method: str | None = None,
    per_channel: bool = False,
    first_last: str = "8bit",
    exclude: Iterable[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    rescale: str = "auto",
    pact_alpha: float | None = None,
    delta: float = 0.0,
) -> nn.Module:
    """Return a copy whose Conv2d and Linear layers are QuantConv2d and QuantLinear.

    Quantized layers are still instances of ``nn.Conv2d`` and ``nn.Linear``, and the original
    ``state_dict`` keys stay valid. Call :func:`calibrate` before the first forward pass.
    Subclasses with their own forward, and ``nn.MultiheadAttention``, stay whole; :func:`summary`
    lists them.

    Args:
        model: any module; it is not changed.
        weight_bits: 1 to 8 (LSQ: 2 to 8); None leaves weights in full precision.
        act_bits: 1 to 8; None quantizes weights only.
        method: ``"lsq"``, ``"pact"`` (DoReFa weights), ``"dorefa"`` or ``"ewgs"``.
        weight_method: overrides the method for weights: ``"lsq" "dorefa" "ewgs"``.
        act_method: overrides the method for activations: ``"lsq" "pact" "dorefa" "ewgs"``.
        per_channel: one LSQ step per output channel of the weights.
        first_last: the first and last layer, in order of registration, get 8 bits (``"8bit"``),
            stay in full precision (``"fp"``), or are treated like the rest (``"same"``).
        exclude: names or globs of layers to leave in full precision.
        overrides: name or glob to a dict with any of ``weight_bits act_bits weight_method
            act_method per_channel``; later entries win.
        rescale: ``"auto"`` gives DoReFa weights their largest magnitude back where no BatchNorm
            of the same width is registered next; ``"off"`` never does.
        pact_alpha: PACT's starting alpha; None takes the 99.9th percentile at calibration.
        delta: EWGS's gradient scaling factor.

    Returns:
        A deep copy, on the same device.

    Raises:
        InputError: unknown method or option, bits out of range, a pattern without a match.
    """
    if method not in PAIRS:
        raise unknown("method", method, list(PAIRS))
    if rescale not in ("auto", "off"):
        raise unknown("rescale", rescale, ["auto", "off"])
    pair = PAIRS[method]
    base = LayerSpec(
        weight_bits, act_bits, weight_method or pair[0], act_method or pair[1], per_channel
    )
    base.check("quantize")
    student = copy.deepcopy(model)
    if any(isinstance(m, LazyModuleMixin) for m in student.modules()):
        raise InputError("model: has lazy layers without weights; run one forward pass first")
    layers = {name: layer for name, layer, why in candidates(student) if why is None}
    specs = _specs(base, list(layers), first_last, exclude, overrides or {})
    normed = _followed_by_batchnorm(student)
    swaps: dict[int, nn.Module] = {}
    for name, spec in specs.items():
        if spec.weight_bits is None and spec.act_bits is None:
            continue
        layer = layers[name]
        lost = rescale == "auto" and id(layer) not in normed
        weight = _weight_quantizer(spec, layer, lost, delta)
        activation = _act_quantizer(spec, pact_alpha, delta)
        for part, quantizer in (("weight_quantizer", weight), ("act_quantizer", activation)):
            if quantizer is not None:
                quantizer.name = f"{name}.{part}" if name else part
        kind = QUANTIZED[nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.Linear]
        swaps[id(layer)] = kind.adopt(layer, weight, activation)
    student = replace_modules(student, swaps)
    if len(swaps) > 1:
        WeightBank(swaps.values()).attach(student)
    return student


def replace_modules(model: nn.Module, swaps: Mapping[int, nn.Module]) -> nn.Module:
    """Replace modules by id, wherever they are used, and return the model."""
    for module in list(model.modules()):
        for name, child in module._modules.items():
            if child is not None and id(child) in swaps:
                module._modules[name] = swaps[id(child)]
    return swaps.get(id(model), model)


def dequantize(student: nn.Module) -> nn.Module:
    """Return a plain copy that holds the quantized weights; EWGS's output scale is folded in.

    Activations are no longer quantized in the result: a warning says so when they were.
    """
    plain = copy.deepcopy(student)
    layers = [m for m in plain.modules() if isinstance(m, QuantLayer)]
    if any(layer.act_quantizer is not None for layer in layers):
        warnings.warn(
            "dequantize: the result has the quantized weights, but its activations are no longer"
            " quantized, so its outputs differ from the student's",
            stacklevel=2,
        )
    WeightBank.detach(plain)
    return replace_modules(plain, {id(layer): layer.to_plain() for layer in layers})
