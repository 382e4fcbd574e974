"""``quantize`` and ``dequantize``: from any module to a low-bit copy and back."""

import copy
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from .._arguments import check_module
from . import fast_path
from .admission import check_any, check_model, check_weights, copy_of
from .base import ActivationQuantizer
from .building import give_operands, quantized_layers_of
from .fusion import unfuse
from .layers import QuantLayer
from .origin import note_arguments
from .placed import PlacedOperation
from .selection import candidates, followed_by_batchnorm, note_first_and_last, patterns_of, specs_of
from .spec import Delta, FirstLast, Flavour, LayerSpec, Rescale, Save, Width, widths_of
from .weight_cache import WeightCache


def _reached(specs: Mapping[str, LayerSpec], layers: Mapping[str, nn.Module]) -> set[int]:
    """Return the ids of layers that a whole attention reads past their forward."""
    whole = [layer for name, layer in layers.items() if name not in specs]
    attentions = [layer for layer in whole if isinstance(layer, nn.MultiheadAttention)]
    return {id(child) for layer in attentions for child in layer.children()}


def _convert(
    model: nn.Module,
    spec: LayerSpec,
    exclude: Iterable[str],
    overrides: Mapping[str, Mapping[str, Any]],
) -> None:
    """Turn the layers of ``model`` into quantized ones, in place."""
    found = list(candidates(model))
    layers = {name: layer for name, layer, reason in found if reason is None}
    refused = {name: reason for name, _, reason in found if reason is not None}
    specs = specs_of(layers, refused, spec, exclude, overrides)
    specs = {n: s for n, s in specs.items() if s.weight_bits is not None or s.act_bits is not None}
    reached = _reached(specs, layers)
    specs = {name: one for name, one in specs.items() if id(layers[name]) not in reached}
    check_any(specs, refused, layers)
    check_weights(layers, specs)
    normed = followed_by_batchnorm(model)
    note_first_and_last(layers.values(), spec)
    quantized: list[QuantLayer] = []
    for name, one in specs.items():
        layer = layers[name]
        if isinstance(layer, PlacedOperation):
            give_operands(name, layer, one, spec, model)
        else:
            quantized += quantized_layers_of(name, layer, one, id(layer) in normed, spec)
    fast_path.switch_off(model)
    if len(quantized) > 1:
        WeightCache(quantized).attach(model)


def quantize(
    model: nn.Module,
    *,
    bits: int | None = None,
    weight_bits: Width = "bits",
    act_bits: Width = "bits",
    weight_levels: int | None = None,
    embedding_bits: int | None = None,
    method: str = "lsq",
    weight_method: str | None = None,
    act_method: str | None = None,
    per_channel: bool = False,
    first_last: FirstLast = "8bit",
    exclude: Iterable[str] = (),
    overrides: Mapping[str, Mapping[str, Any]] | None = None,
    rescale: Rescale = "auto",
    pact_alpha: float | None = None,
    delta: Delta = 0.0,
    save: Save = "values",
    flavour: Flavour = "paper",
) -> nn.Module:
    """Return a copy whose convolutions, transposed ones too, and linear layers are quantized.

    ``nn.Conv1d`` becomes ``QuantConv1d``, and so on: quantized layers are still instances of
    torch's classes, and the original ``state_dict`` keys stay valid. Call :func:`calibrate` before
    the first forward pass.

    Of ``nn.MultiheadAttention`` the projections are quantized: ``attention.in_proj``, a new child
    whose weight stays ``attention.in_proj_weight``, and ``attention.out_proj``. Its own name is
    that of the first in ``exclude`` and ``overrides``; where it stays whole, so does the second.
    Hugging Face's ``Conv1D`` is a linear layer. ``daqakd.nn.QuantAdd`` and ``QuantMatMul``, placed
    in the model, quantize both their inputs.

    Subclasses with members of their own, layers whose weight a parent reads directly, and weights
    that are computed (pruned, weight-normalised) stay in full precision; :func:`summary` lists them
    with the reason. torch's fast path of ``nn.TransformerEncoder``, which reads the weights of the
    layers in it, is switched off.

    Args:
        model: any module; it is not changed.
        bits: of weights and activations where they have none of their own; None is 4 for both.
        weight_bits: 1 to 8 (LSQ: 2 to 8); 32 or None leaves weights in full precision.
        act_bits: 1 to 8; 32 or None quantizes weights only. Beside ``bits`` one of the two may
            differ; without it, both are needed or none.
        weight_levels: levels of SEQ's weights, 2 to ``2^weight_bits``; None for the latter. 3 makes
            ternary weights, which 2 bits hold. It counts for layers of ``weight_bits``: first and
            last ones of 8 bits, embeddings, and layers with ``weight_bits`` of their own in
            ``overrides`` have ``2^bits`` levels, or what ``overrides`` say.
        embedding_bits: 1 to 8 for the weights of ``nn.Embedding``; 32 or None leaves them in full
            precision. They have an option of their own, since a look-up costs memory and no
            arithmetic: the width that suits layers need not suit it.
        method: ``"lsq"``, ``"lsqplus"`` (LSQ's weights; activations with a learned offset),
            ``"pact"`` (DoReFa weights), ``"dorefa"``, ``"ewgs"`` or ``"seq"`` (weights of levels
            balanced around 0; LSQ's activations).
        weight_method: overrides the method for weights: ``"lsq" "dorefa" "ewgs" "seq"``.
        act_method: overrides the method for activations: ``"lsq" "lsqplus" "pact" "dorefa"
            "ewgs"``.
        per_channel: one step of LSQ or SEQ per output channel of the weights; of a transposed
            convolution, one per ``weight.shape[1]``, which the groups share; of an embedding, one
            per row.
        first_last: the first and last layer, in order of registration, embeddings and placed
            operations not counted, get 8 bits (``"8bit"``), stay in full precision (``"fp"``), or
            are treated like the rest (``"same"``); :func:`summary` says which they were.
        exclude: names or globs of layers to leave in full precision; a string is one of them.
        overrides: name or glob to a dict with any of ``weight_bits weight_levels act_bits
            embedding_bits weight_method act_method per_channel``; later entries win.
        rescale: ``"auto"`` gives DoReFa weights their largest magnitude back where no BatchNorm
            of the same width is registered next; ``"off"`` never does.
        pact_alpha: PACT's starting alpha; None takes the 99.9th percentile at calibration.
        delta: EWGS's gradient scaling factor; ``"hessian"`` gives each quantizer its own, a buffer
            that starts at 0 and that :func:`daqakd.update_delta` sets, or :func:`daqakd.distill`.
        save: what layers keep of their quantized inputs for backward: ``"values"``, or ``"codes"``
            at 1, 2, 4 or 8 bits, which give the same gradients, bit for bit.
        flavour: ``"paper"``, or ``"mqbench"`` for MQBench's lsq, pact and dorefa, by which the
            published Tiny ImageNet results of [DAQAKD] were trained: codes in
            [-2^(b-1), 2^(b-1) - 1] for weights and activations, also after a ReLU; PACT with a
            fixed alpha of 6; DoReFa's activations normalised by the batch's maximum, in evaluation
            too, so that predictions depend on the batch. Its DoReFa weights are never rescaled, and
            it is not fused with BatchNorm. See :func:`param_groups`.

    Returns:
        A deep copy, on the same device.

    Raises:
        InputError: an unknown method, a value that cannot be meant, bits out of range, a pattern
            that matches no layer, a model that is lazy, scripted, traced, quantized already or has
            no layer to quantize, a weight that is not finite, or one all zero for DoReFa or EWGS.
    """
    widths = widths_of(bits, weight_bits, act_bits)
    spec = LayerSpec(
        weight_bits=widths[0],
        weight_levels=weight_levels,
        act_bits=widths[1],
        embedding_bits=embedding_bits,
        method=method,
        weight_method=weight_method,
        act_method=act_method,
        per_channel=per_channel,
        first_last=first_last,
        rescale=rescale,
        pact_alpha=pact_alpha,
        delta=delta,
        save=save,
        flavour=flavour,
    )
    spec.check()
    check_model(model)
    student, changes = copy_of(model), {} if overrides is None else overrides
    excluded = patterns_of(exclude)
    _convert(student, spec, excluded, changes)
    note_arguments(student, spec, excluded, changes)
    return student


def dequantize(student: nn.Module) -> nn.Module:
    """Return a plain copy that holds the quantized weights; EWGS's output scale is folded in.

    Activations are no longer quantized in the result: a warning says so when they were.
    """
    check_module("student", student)
    plain = copy.deepcopy(student)
    layers = [m for m in plain.modules() if isinstance(m, QuantLayer | PlacedOperation)]
    if any(isinstance(m, ActivationQuantizer) for m in plain.modules()):
        warnings.warn(
            "dequantize: the result has the quantized weights, but its activations are no longer"
            " quantized, so its outputs differ from the student's",
            stacklevel=2,
        )
    unfuse(plain)
    WeightCache.detach(plain)
    for layer in layers:
        layer.to_plain()
    return plain
