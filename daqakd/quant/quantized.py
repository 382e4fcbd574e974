"""What a fused op hands a quantized layer: its input, quantized already."""

from typing import NamedTuple

from torch import Tensor

from .base import ActivationQuantizer


class Quantized(NamedTuple):
    """A quantized input, and the activation it was made of where others can change that."""

    value: Tensor
    source: Tensor | None = None
    version: int | None = None  # of source, as it was quantized

    def renewed(self, quantizer: ActivationQuantizer) -> Tensor:
        """Return the value, quantized anew where the activation has changed in place since."""
        if self.source is None or self.source._version == self.version:
            return self.value
        return quantizer(self.source)
