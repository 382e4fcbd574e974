"""The quantizers that a spec asks for, and layers turned into quantized ones by them."""

import torch
from torch import Tensor, nn

from . import mqbench
from .activations import DoReFaActivation, EWGSActivation, LSQActivation, PACTActivation
from .attention import QuantMultiheadAttention
from .base import ActivationQuantizer
from .kinds import kind_of
from .layers import QuantLayer
from .lsqplus import LSQPlusActivation
from .placed import PlacedOperation
from .seq import SEQWeight
from .spec import LayerSpec
from .weights import DoReFaWeight, EWGSWeight, LSQWeight, WeightQuantizer


def _weight_quantizer(
    spec: LayerSpec, weight: Tensor, kind: type[QuantLayer], normed: bool
) -> WeightQuantizer | None:
    if spec.weight_bits is None:
        return None
    if spec.flavour == "mqbench":
        return mqbench.weight_quantizer(spec, weight, spec.weight_bits)
    if spec.weights_by == "lsq":
        return LSQWeight(weight, spec.weight_bits, spec.per_channel, kind.channel_axis)
    if spec.weights_by == "seq":
        levels = spec.weight_levels
        return SEQWeight(weight, spec.weight_bits, spec.per_channel, kind.channel_axis, levels)
    if spec.weights_by == "dorefa":
        return DoReFaWeight(weight, spec.weight_bits, spec.rescale == "auto" and not normed)
    return EWGSWeight(weight, spec.weight_bits, spec.delta)


def _act_quantizer(spec: LayerSpec) -> ActivationQuantizer | None:
    if spec.act_bits is None:
        return None
    if spec.flavour == "mqbench":
        return mqbench.act_quantizer(spec, spec.act_bits)
    if spec.activations_by == "lsq":
        return LSQActivation(spec.act_bits)
    if spec.activations_by == "pact":
        return PACTActivation(spec.act_bits, spec.pact_alpha)
    if spec.activations_by == "dorefa":
        return DoReFaActivation(spec.act_bits)
    if spec.activations_by == "lsqplus":
        return LSQPlusActivation(spec.act_bits)
    return EWGSActivation(spec.act_bits, spec.delta)


def give_operands(
    name: str, operation: PlacedOperation, spec: LayerSpec, base: LayerSpec, model: nn.Module
) -> None:
    """Quantize both inputs of an operation."""
    for part in ("left", "right"):
        quantizer = _act_quantizer(spec)
        assert quantizer is not None
        quantizer.name = f"{name}.{part}.act_quantizer" if name else f"{part}.act_quantizer"
        quantizer.uniform = spec.act_bits == base.act_bits
        operation.get_submodule(part).act_quantizer = quantizer
    operation.register_buffer("macs", torch.zeros((), dtype=torch.int64))
    some = next(model.parameters(), None)
    if some is not None:
        operation.to(some.device)


def _quantizers(
    name: str,
    spec: LayerSpec,
    base: LayerSpec,
    weight: Tensor,
    kind: type[QuantLayer],
    normed: bool,
) -> tuple[WeightQuantizer | None, ActivationQuantizer | None]:
    """Return those of a layer; ``normed``: a BatchNorm of its width follows."""
    found = _weight_quantizer(spec, weight, kind, normed), _act_quantizer(spec)
    for part, quantizer in zip(("weight_quantizer", "act_quantizer"), found, strict=True):
        if quantizer is not None:
            quantizer.name = f"{name}.{part}" if name else part
    weights, activation = found
    if weights is not None:
        weights.uniform = spec.weight_bits == base.weight_bits and not kind.looks_up
    if activation is not None:
        activation.uniform = spec.act_bits == base.act_bits
    return found


def quantized_layers_of(
    name: str, layer: nn.Module, spec: LayerSpec, normed: bool, base: LayerSpec
) -> list[QuantLayer]:
    """Turn ``layer`` into a quantized one; return it, or of an attention its projections."""
    kind = kind_of(layer)
    assert kind is not None
    if isinstance(layer, nn.MultiheadAttention):
        projections = QuantMultiheadAttention.adopt(layer).projections()
        made: list[QuantLayer] = [*projections]
        for one in projections:
            own = f"{name}.{one.name}" if name else one.name
            one.take(*_quantizers(own, spec, base, one.weight, kind, False))
    else:
        (weight,) = kind.weights_of(layer)
        made = [kind.adopt(layer, *_quantizers(name, spec, base, weight, kind, normed))]
    for found in made:
        found.save = spec.save
    return made
