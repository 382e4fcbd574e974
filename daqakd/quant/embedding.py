"""``nn.Embedding`` with quantized weights."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from .layers import QuantLayer


class QuantEmbedding(QuantLayer, nn.Embedding):
    """``nn.Embedding`` with fake-quantized weights; its input, indices, has no quantizer.

    Per channel there is one step per row, which is what an output layer tied to it has, too. A
    weight that is tied belongs to both layers, each with quantizers of its own. The row at
    ``padding_idx`` gets no gradient, as in torch; of the methods LSQ alone has a level at 0, where
    such a row usually lies.
    """

    plain = nn.Embedding
    looks_up = True
    bias = None

    @staticmethod
    def obstacle(layer: Any) -> str | None:
        """Return why a layer stays whole, or None."""
        if layer.max_norm is not None:
            return "its max_norm changes its weight in the forward pass"
        return "its gradients are sparse, which quantizers' are not" if layer.sparse else None

    @staticmethod
    def output_channels(layer: Any) -> int:
        """Return the width of a vector."""
        width: int = layer.weight.shape[1]
        return width

    @staticmethod
    def multiply_adds(layer: Any, x: Tensor, out: Tensor) -> int:
        """Return 0: a look-up has none."""
        return 0

    def linear_map(self, x: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> Tensor:
        """Look up."""
        options = self.padding_idx, None, 2.0, self.scale_grad_by_freq
        return functional.embedding(x, weight, *options)
