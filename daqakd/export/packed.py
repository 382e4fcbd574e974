"""The small form of a student: integer weight codes at their bit width, and all the rest as it is.

For a quantized layer, ``<layer>.weight`` holds the packed codes (see :mod:`daqakd._packing`) and,
for 1-bit DoReFa, ``<layer>.weight.magnitude`` the factor of the signs. Steps, biases, BatchNorm,
activation quantizers and full-precision layers keep their names. The metadata's ``packed`` says
bits, method and shape of each, and of how many levels it is where these are not ``2^bits``.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from .._packing import pack_codes, unpack_codes
from ..quant.layers import QuantLayer
from ..quant.weights import WeightQuantizer

FACT = "packed"  # the metadata entry that tells a packed file


def packable(student: nn.Module) -> Iterator[tuple[str, QuantLayer, WeightQuantizer]]:
    """Yield the ``state_dict`` key of the weight, layer and quantizer of each quantized weight."""
    for name, layer in student.named_modules():
        if isinstance(layer, QuantLayer) and layer.weight_quantizer is not None:
            yield layer.weight_key(name), layer, layer.weight_quantizer


def _facts(layer: QuantLayer, quantizer: WeightQuantizer) -> dict[str, Any]:
    shape = list(layer.weight.shape)
    facts: dict[str, Any] = {"bits": quantizer.bits, "method": quantizer.method, "shape": shape}
    if not quantizer.has_all_levels:
        facts["levels"] = quantizer.num_levels
    return facts


@torch.no_grad()
def pack(student: nn.Module) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a packed file and its ``packed`` metadata.

    Raises:
        InputError: codes that do not give a layer's weights back bit for bit: a NaN.
    """
    tensors, layers = dict(student.state_dict()), {}
    for key, layer, quantizer in packable(student):
        codes, magnitude = quantizer.codes(layer.weight), quantizer.magnitude(layer.weight)
        if not torch.equal(quantizer.from_codes(codes, magnitude), quantizer(layer.weight)):
            raise InputError(
                f"{key}: {quantizer.bits}-bit codes do not give its quantized values back, so it"
                " holds NaN or is no float32 weight; train again with a lower --lr"
            )
        tensors[key] = torch.from_numpy(pack_codes(codes.cpu().numpy(), quantizer.bits))
        if magnitude is not None:
            tensors[f"{key}.magnitude"] = magnitude
        layers[key] = _facts(layer, quantizer)
    return tensors, json.dumps(layers)


def unpack(tensors: Mapping[str, Tensor], text: str, path: Path) -> dict[str, Tensor]:
    """Return tensors that fit the student: the codes, unpacked, stand where the weights were.

    Raises:
        InputError: ``text``, the metadata of the file at ``path``, does not describe its tensors.
    """
    plain = {k: v for k, v in tensors.items() if not k.endswith("weight.magnitude")}
    try:
        for key, facts in json.loads(text).items():
            codes = unpack_codes(tensors[key].numpy(), facts["bits"], tuple(facts["shape"]))
            plain[key] = torch.from_numpy(codes)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: a damaged packed student ({type(error).__name__}: {error}); write it again"
            " by the same train command, without this file"
        ) from error
    return plain


def untie(student: nn.Module) -> None:
    """Give each quantized layer a weight of its own, which codes can be loaded into, in place."""
    for _, layer, _ in packable(student):
        layer.replace_weight(layer.weight.detach().clone())


@torch.no_grad()
def decode(
    student: nn.Module,
    codes: Mapping[str, Tensor],
    tensors: Mapping[str, Tensor],
    text: str,
    path: Path,
) -> nn.Module:
    """Give a student the weights that its codes stand for, in place.

    Its weights need no quantizer any more: they are what the quantizers gave, bit for bit. Layers
    that shared a weight have one each: their steps, so their codes, differ.

    Args:
        student: loaded with ``codes``.
        codes: what :func:`unpack` returned.
        tensors: the packed file's.
        text: its ``packed`` metadata.
        path: the file.

    Raises:
        InputError: the recipe in the file at ``path`` gives other layers than are packed there.
    """
    wanted = {key: _facts(layer, quantizer) for key, layer, quantizer in packable(student)}
    if wanted != json.loads(text):
        raise InputError(
            f"{path}: a damaged packed student: its recipe and its packed layers differ; write it"
            " again by the same train command, without this file"
        )
    for key, layer, quantizer in list(packable(student)):
        own, magnitude = codes[key].to(layer.weight), tensors.get(f"{key}.magnitude")
        layer.replace_weight(quantizer.from_codes(own, magnitude))
        layer.weight_quantizer = None
    return student
