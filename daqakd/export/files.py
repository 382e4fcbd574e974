"""``save`` and ``load``: one file that holds a student and all that is needed to use it."""

import copy
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._arguments import check_flag, check_module, path_of
from .._errors import InputError
from .._files import read_tensors, write_tensors
from ..models import BUILDERS, build
from ..quant.base import Quantizer
from ..quant.origin import arguments_of
from ..quant.weights import WeightQuantizer
from . import packed as packing
from .batchnorm import FOLDED, folded_norms
from .fitting import RECIPE, fit, loaded, outputs_of

OWN = ("weight_quantizer.", "act_quantizer.", "output_scale")  # in names of a student's parameters
MODEL, CLASSES, COUNT, QUANTIZERS = "model", "classes", "num_classes", "quantizers"


def save(student: nn.Module, path: str | Path, packed: bool = False) -> None:
    """Write a student to a safetensors file, replaced atomically.

    The file holds all tensors, the arguments of :func:`daqakd.quantize`, which quantizer each layer
    has, with its bits and granularity, the model's name where it is one of ours, and a hash. Of a
    Hugging Face student this is the way to keep it: ``from_pretrained`` would read what its own
    ``save_pretrained`` writes as a full-precision model.

    Args:
        student: what :func:`daqakd.quantize` returned; calibrated, trained, fused or not.
        path: ends in ``.safetensors``.
        packed: store weights as integer codes at their bit width; the same outputs, bit for bit,
            but no weights to train on.

    Raises:
        InputError: a model that is not quantized, or does not know how.
        OSError: the file cannot be written.
    """
    check_module("student", student)
    check_flag("packed", packed)
    place = path_of("path", path)
    quantizers, arguments = _quantizers(student), arguments_of(student)
    if not quantizers:
        raise InputError(
            "student: has no quantizers; save a full-precision model by safetensors, or quantize it"
            " first"
        )
    if arguments is None:
        raise InputError(
            "student: does not know what it was quantized with, as it lies inside of another module"
            " or was made by an older version; save what quantize() returned"
        )
    facts = {RECIPE: json.dumps(arguments), QUANTIZERS: json.dumps(quantizers)}
    facts |= {COUNT: str(outputs_of(student)), MODEL: _name_of(student)}
    if folded := folded_norms(student):
        facts[FOLDED] = json.dumps(folded)
    tensors: dict[str, Tensor] = dict(student.state_dict())
    if packed:
        tensors, facts[packing.FACT] = packing.pack(student)
    write_tensors(place, tensors, facts)


def load(path: str | Path, model: nn.Module | None = None) -> nn.Module:
    """Return the student of a file, on the CPU or the device of ``model``, in eval mode.

    Args:
        path: what :func:`save` wrote, or ``daqakd train``.
        model: a full-precision model of the same architecture, or a student quantized alike, whose
            weights do not matter; it is not changed. None where the file names a model of ours.
            Of a Hugging Face model, what ``from_config`` or ``from_pretrained`` returns.

    Raises:
        InputError: no such file, or a damaged one; a model of another architecture or other
            quantizers; none, where the file names no model of ours.
    """
    place = path_of("path", path)
    if not place.is_file():
        raise InputError(f"path: {place} is no file; pass one that daqakd.save wrote")
    tensors, facts = read_tensors(place)
    if RECIPE not in facts:
        raise InputError(
            f"path: {place} holds no student of this package; load it by safetensors, or quantize"
            " and save it first"
        )
    if model is None:
        return loaded(_built(facts, place), tensors, facts, place, facts[MODEL])
    check_module("model", model)
    twin, name = copy.deepcopy(model), type(model).__name__
    if not _quantizers(model):
        return loaded(twin, tensors, facts, place, name)
    return _into_student(twin, tensors, facts, place, name)


def _into_student(
    student: nn.Module, tensors: dict[str, Tensor], facts: dict[str, str], path: Path, name: str
) -> nn.Module:
    """Load into a student, after making sure that it is quantized as the file's is."""
    if packing.FACT in facts:
        raise InputError(
            f"path: {path} is packed, so it has no weights for a student; pass the full-precision"
            " model that it was quantized from"
        )
    if QUANTIZERS not in facts:
        raise InputError(
            f"path: {path} does not list its quantizers, so a student cannot be compared with it;"
            " pass the full-precision model, and the file says how to quantize it"
        )
    there, here = json.loads(facts[QUANTIZERS]), _quantizers(student)
    if there != here:
        raise InputError(
            f"model: is quantized in another way than {path}: {_difference(there, here)}"
        )
    return fit(student, tensors, path, name)


def _difference(there: dict[str, str], here: dict[str, str]) -> str:
    """Say the first of what differs, and what to do."""
    names = [n for n in there.keys() | here.keys() if there.get(n) != here.get(n)]
    first = min(names)
    told = f"{first} is {there.get(first, 'absent')} there and {here.get(first, 'absent')} here"
    return f"{told}; pass the full-precision model, and the file says how to quantize it"


def _quantizers(model: nn.Module) -> dict[str, str]:
    """Return what each quantizer is, by its name."""
    found: dict[str, str] = {}
    for name, one in model.named_modules():
        if isinstance(one, Quantizer):
            flavour = "" if one.flavour == "paper" else f", {one.flavour}"
            some = isinstance(one, WeightQuantizer) and not one.has_all_levels
            levels = f", {one.num_levels} levels" if some else ""
            found[name] = f"{one.method}, {one.bits} bits{levels}, per {one.granularity}{flavour}"
    return found


def _name_of(student: nn.Module) -> str:
    """Return the name of a model of ours, or the class of another."""
    folded = folded_norms(student)
    shapes = _shapes(student, folded)
    for name in BUILDERS:
        with torch.device("meta"):
            one = build(name, max(outputs_of(student), 1))
        if isinstance(student, type(one)) and _shapes(one, folded) == shapes:
            return name
    return type(student).__name__


def _shapes(model: nn.Module, folded: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Return those of the parameters that a model had before it was quantized.

    Where norms were folded, without what that takes away and without the biases, which it adds.
    """
    named = ((n, tuple(value.shape)) for n, value in model.named_parameters())
    found = {n: shape for n, shape in named if not any(own in n for own in OWN)}
    left = (n for n in found if n.rpartition(".")[0] not in folded)
    return {n: found[n] for n in left if not (folded and n.endswith("bias"))}


def _built(facts: dict[str, str], path: Path) -> nn.Module:
    name = facts.get(MODEL, "")
    if name not in BUILDERS:
        raise InputError(
            f"model: {path} is of {name or 'an unnamed model'}, which is none of ours; pass a model"
            " of that architecture"
        )
    return build(name, _classes(facts))


def _classes(facts: dict[str, Any]) -> int:
    return len(json.loads(facts[CLASSES])) if CLASSES in facts else int(facts[COUNT])
