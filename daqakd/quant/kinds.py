"""Which types of layers are quantized, and what each becomes."""

from torch import nn

from .attention import QuantProjection
from .convolutions import (
    QuantConv1d,
    QuantConv3d,
    QuantConvTranspose1d,
    QuantConvTranspose2d,
    QuantConvTranspose3d,
)
from .embedding import QuantEmbedding
from .hugging_face import is_conv1d, quantized_conv1d
from .layers import QuantConv2d, QuantLayer, QuantLinear
from .placed import PlacedOperation

KINDS: dict[type, type[QuantLayer]] = {
    kind.plain: kind
    for kind in (
        *(QuantConv1d, QuantConv2d, QuantConv3d),
        *(QuantConvTranspose1d, QuantConvTranspose2d, QuantConvTranspose3d),
        *(QuantEmbedding, QuantLinear, QuantProjection),
    )
}


def kind_of(module: nn.Module) -> type[QuantLayer] | None:
    """Return the quantized form of a layer, which may be one already; None if there is none."""
    for one in type(module).__mro__:
        if one in KINDS:
            return KINDS[one]
        if is_conv1d(one):
            return quantized_conv1d(one)
    return None


def widths_of(layer: nn.Module) -> tuple[str, ...]:
    """Return the options that say how wide a layer, embedding or placed operation is."""
    if isinstance(layer, PlacedOperation):
        return ("act_bits",)
    return ("embedding_bits",) if looks_up(layer) else ("weight_bits", "act_bits")


def looks_up(layer: nn.Module) -> bool:
    """Return whether a layer is an embedding."""
    kind = kind_of(layer)
    return kind is not None and kind.looks_up
