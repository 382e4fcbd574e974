"""Additions and products that users place in their models, so that their inputs are quantized."""

import torch
from torch import Tensor, nn

from .operands import Operand


class PlacedOperation(nn.Module):
    """Base of operations on two activations, each with a quantizer of its own.

    In a model that is not quantized it has no parameters and computes the plain operation;
    :func:`~daqakd.quantize` gives ``left`` and ``right`` their quantizers.
    """

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = Operand(), Operand()

    @property
    def is_quantized(self) -> bool:
        """Whether it has quantizers."""
        return self.left.act_quantizer is not None

    @staticmethod
    def multiply_adds(layer: object, x: Tensor, out: Tensor) -> int:
        """Return how many a call did."""
        raise NotImplementedError

    def to_plain(self) -> None:
        """Drop the quantizers, in place."""
        self.left, self.right = Operand(), Operand()
        self._buffers.pop("macs", None)


class QuantAdd(PlacedOperation):
    """``x + y`` of two tensors, as in residual networks, with both quantized in a student.

    Write it where the model adds, in the model itself; a plain ``+`` cannot be found there.

    >>> add = QuantAdd()
    >>> add(torch.ones(2), torch.tensor([1.0, 2.0]))
    tensor([2., 3.])
    """

    @staticmethod
    def multiply_adds(layer: object, x: Tensor, out: Tensor) -> int:
        """Return 0: there is no product."""
        return 0

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """Add tensors of shapes that broadcast."""
        out: Tensor = self.left(x) + self.right(y)
        return out


class QuantMatMul(PlacedOperation):
    """``torch.matmul(a, b)``, as between queries and keys, with both quantized in a student.

    >>> QuantMatMul()(torch.ones(1, 2), torch.ones(2, 1))
    tensor([[2.]])
    """

    @staticmethod
    def multiply_adds(layer: object, x: Tensor, out: Tensor) -> int:
        """Return the products."""
        return out.numel() * x.shape[-1]

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Multiply ``[..., M, K]`` by ``[..., K, N]``, or whatever ``torch.matmul`` takes."""
        return torch.matmul(self.left(a), self.right(b))
