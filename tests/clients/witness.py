"""What a student's products really read, seen below all Python, by nothing of the package's own."""

from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from daqakd.quant.layers import QuantLayer

CONVOLUTIONS = {"conv2d", "convolution"}
PRODUCTS = {
    "addmm",
    "addmv",
    "baddbmm",
    "bmm",
    "dot",
    "linear",
    "matmul",
    "mm",
    "mv",
} | CONVOLUTIONS
FUSED = {"_native_multi_head_attention", "_transformer_encoder_layer_fwd"}


def quantized_layers(student: nn.Module) -> dict[str, Any]:
    """Return the layers that claim to be quantized."""
    return {name: m for name, m in student.named_modules() if isinstance(m, QuantLayer)}


class Witness(TorchDispatchMode):
    """Notes which layers ran, how many values their operands had, and who read a weight whole.

    ``levels`` has the largest number of different inputs and weights of every layer's products;
    ``whole`` the layers whose full-precision weight went into a product, anywhere.
    """

    def __init__(self, student: nn.Module) -> None:
        super().__init__()
        self.layers = quantized_layers(student)
        self.names = {id(layer): name for name, layer in self.layers.items()}
        self.owners = {
            layer.weight.untyped_storage().data_ptr(): name for name, layer in self.layers.items()
        }
        self.inside: list[str] = []
        self.levels: dict[str, tuple[int, int]] = {}
        self.whole: set[str] = set()
        self.handles: list[Any] = []

    def __enter__(self):
        for layer in self.layers.values():
            self.handles.append(layer.register_forward_pre_hook(self._enter_layer))
            self.handles.append(layer.register_forward_hook(self._leave_layer))
        return super().__enter__()

    def __exit__(self, *args):
        for handle in self.handles:
            handle.remove()
        return super().__exit__(*args)

    def _enter_layer(self, layer, args):
        self.inside.append(self.names[id(layer)])

    def _leave_layer(self, layer, args, out):
        self.inside.pop()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        operation = func.overloadpacket.__name__
        if operation in PRODUCTS | FUSED:
            self._note([x for x in tree_leaves(args) if isinstance(x, Tensor)], operation)
        return func(*args, **(kwargs or {}))

    def _note(self, tensors: list[Tensor], operation: str) -> None:
        self.whole |= {
            self.owners[x.untyped_storage().data_ptr()]
            for x in tensors
            if x.untyped_storage().data_ptr() in self.owners
        }
        operands = [x for x in tensors if operation in CONVOLUTIONS or x.dim() > 1]
        if self.inside and operation in PRODUCTS:
            name = self.inside[-1]
            counts = [x.unique().numel() for x in operands[:2]]
            before = self.levels.get(name, (0, 0))
            self.levels[name] = max(before[0], counts[0]), max(before[1], counts[1])

    def check(self, wanted: set[str]) -> None:
        """Require that the layers in ``wanted`` ran, and that all products were quantized."""
        assert not self.whole, f"computed in full precision: {sorted(self.whole)}"
        assert set(self.levels) == wanted, sorted(set(self.levels) ^ wanted)
        for name, (inputs, weights) in self.levels.items():
            layer = self.layers[name]
            for quantizer, count in (
                (layer.act_quantizer, inputs),
                (layer.weight_quantizer, weights),
            ):
                assert quantizer is None or 0 < count <= 2**quantizer.bits, (name, inputs, weights)
