"""``fold_batchnorm``: BatchNorms become part of the layers before them."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from .._arguments import check_module
from .._errors import InputError
from ..quant.admission import copy_of
from ..quant.affine import WeightAffine
from ..quant.fusion import unfuse
from ..quant.fusion.members import NORMS, is_hooked
from ..quant.fusion.tracing import LEAVES, Traced, around_opaque, holds_quantized, trace
from ..quant.layers import QuantLayer
from ..quant.weight_cache import WeightCache
from ..quant.weights import WeightQuantizer

FOLDED = "batchnorm_folded"  # the attribute of a student, and the entry of its file's metadata
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
FOLDABLE = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


class FoldedWeight(WeightQuantizer):
    """Weights of another quantizer, each output channel times a factor; the codes are its own."""

    has_fused_op = False

    def __init__(self, inner: WeightQuantizer, factor: Tensor) -> None:
        super().__init__(inner.bits)
        self.method, self.flavour, self.uniform = inner.method, inner.flavour, inner.uniform
        self.name, self.inner = inner.name, inner
        self.register_buffer("factor", factor)
        self.factor: Tensor

    @property
    def granularity(self) -> str:
        """``channel``: the factors."""
        return "channel"

    @property
    def num_levels(self) -> int:
        """The quantizer's number of levels."""
        return self.inner.num_levels

    def set_bits(self, bits: int) -> None:
        """Take another width."""
        super().set_bits(bits)
        self.inner.set_bits(bits)

    def restart(self, weight: Tensor) -> None:
        """Start the quantizer anew; the factors stay."""
        self.inner.restart(weight)

    def step_size(self) -> float | None:
        """Return the mean distance of two levels."""
        step = self.inner.step_size()
        return None if step is None else step * self.factor.abs().mean().item()

    def apply_op(self, w: Tensor) -> Tensor:
        """Fake-quantize."""
        return self.inner.apply_op(w)

    def finish(self, y: Tensor) -> Tensor:
        """Multiply."""
        return self.inner.finish(y) * self.factor.to(y.dtype)

    def codes(self, w: Tensor) -> Tensor:
        """Return the quantizer's codes."""
        return self.inner.codes(w)

    def magnitude(self, w: Tensor) -> Tensor | None:
        """Return the quantizer's magnitude."""
        return self.inner.magnitude(w)

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return the quantizer's values times the factors."""
        return self.inner.from_codes(codes, magnitude) * self.factor

    def affine(self, w: Tensor) -> WeightAffine:
        """Return a scale per channel; below 0 where the BatchNorm's weight is."""
        scale, offset = self.inner.affine(w)
        return WeightAffine(scale * self.factor.flatten().float(), offset)


class FoldedNorm(nn.Identity):
    """What is left of a BatchNorm; after a linear layer it wants the features last."""

    def __init__(self, after_linear: bool) -> None:
        super().__init__()
        self.after_linear = after_linear

    def forward(self, x: Tensor) -> Tensor:
        """Return the input."""
        if self.after_linear and x.dim() != 2:
            raise InputError(
                f"input: a BatchNorm of [N, C] was folded into a linear layer, whose output here is"
                f" {tuple(x.shape)}; do not fold this student"
            )
        return x


class Pair(NamedTuple):
    """A layer, and the BatchNorm that alone reads its output."""

    layer: Any
    norm: Any
    name: str  # of the norm


def fold_batchnorm(student: nn.Module) -> nn.Module:
    """Return a copy for inference, in which BatchNorms are part of the layers before them.

    Of ``norm(conv(x))`` the factor of each channel goes to the weights' scale, which becomes one
    per channel, and the shift to the bias; the weights' codes stay. So does a BatchNorm whose
    input others read, too, that no convolution or linear layer precedes, that has no running
    statistics, or whose surroundings ``torch.fx`` cannot trace. :func:`daqakd.fuse`'s chains are
    taken apart first. :func:`daqakd.save` and ``load`` take the copy.

    Args:
        student: what :func:`daqakd.quantize` returned; it is not changed.

    Returns:
        A deep copy in eval mode; each layer's output is the BatchNorm's of before, to rounding. An
        activation within rounding of a boundary between two levels may get the other.

    Raises:
        InputError: no module, or one without a quantized layer.
    """
    check_module("student", student)
    if not holds_quantized(student):
        raise InputError(
            "student: has no quantized layer; pass what quantize() returns, or fold by"
            " torch.nn.utils.fusion"
        )
    twin = copy_of(student).eval()
    unfuse(twin)
    pairs = list(_pairs(twin))
    if pairs:
        WeightCache.detach(twin)
    for pair in pairs:
        _fold(pair.layer, pair.norm)
        twin.set_submodule(pair.name, FoldedNorm(isinstance(pair.layer, nn.Linear)))
    twin.__dict__[FOLDED] = [*folded_norms(student), *(pair.name for pair in pairs)]
    return twin


def folded_norms(student: nn.Module) -> list[str]:
    """Return the names of the BatchNorms that were folded."""
    found: list[str] = student.__dict__.get(FOLDED, [])
    return found


def _traces(root: nn.Module, name: str = "") -> Iterator[tuple[str, Traced]]:
    """Yield the graphs of a root and of what its own code does not reach into, by name."""

    def attempt(root: nn.Module, opaque: dict[str, str]) -> Traced:
        return trace(root, False, opaque)

    called = type(root).forward is not nn.Module.forward and "forward" not in vars(root)
    found = around_opaque(root, attempt)[0] if called else None
    if found is not None:
        yield name, found
    inner = [n for n, _ in root.named_children()] if found is None else sorted(found.leaves)
    for key in inner:
        module = root.get_submodule(key)
        if not isinstance(module, LEAVES) and holds_quantized(module):
            yield from _traces(module, f"{name}.{key}" if name else key)


def _pairs(model: nn.Module) -> Iterator[Pair]:
    """Yield what can be folded."""
    traces = [(name, model.get_submodule(name), traced) for name, traced in _traces(model)]
    calls = Counter(id(m) for _, root, traced in traces for m in _called(root, traced))
    for name, root, traced in traces:
        for node in traced.graph.nodes:
            layer, norm = _before(root, node), _module(root, node)
            if layer is None or calls[id(layer)] > 1 or calls[id(norm)] > 1:
                continue
            if _fits(layer, norm) and not _is_read(traced.graph, str(node.target)):
                yield Pair(layer, norm, f"{name}.{node.target}" if name else str(node.target))


def _called(root: nn.Module, traced: Traced) -> Iterator[nn.Module]:
    for node in traced.graph.nodes:
        module = _module(root, node)
        if module is not None:
            yield module


def _module(root: nn.Module, node: Any) -> nn.Module | None:
    return root.get_submodule(str(node.target)) if node.op == "call_module" else None


def _before(root: nn.Module, node: fx.Node) -> nn.Module | None:
    """Return the layer whose output this node alone reads, where the node is a norm."""
    if type(_module(root, node)) not in NORMS or len(node.args) != 1 or node.kwargs:
        return None
    source: Any = node.args[0]
    return _module(root, source) if len(source.users) == 1 else None


def _fits(layer: Any, norm: Any) -> bool:
    """Return whether a norm over the layer's output channels can go into the layer."""
    kind = layer.plain if isinstance(layer, QuantLayer) else type(layer)
    if kind not in FOLDABLE or is_hooked(layer) or is_hooked(norm):
        return False
    if "weight" not in layer._parameters or (kind in TRANSPOSED and layer.groups > 1):
        return False
    return norm.running_mean is not None and len(norm.running_mean) == _channels(layer)


def _is_read(graph: fx.Graph, name: str) -> bool:
    """Return whether other code reads the norm's parameters."""
    read = (str(node.target) for node in graph.nodes if node.op == "get_attr")
    return any(target.startswith(f"{name}.") for target in read)


def axis_of(layer: nn.Module) -> int:
    """Return the axis of a weight's output channels."""
    if isinstance(layer, QuantLayer):
        return layer.channel_axis
    return 1 if isinstance(layer, TRANSPOSED) else 0


def _channels(layer: Any) -> int:
    count: int = layer.weight.shape[axis_of(layer)]
    return count


@torch.no_grad()
def _fold(layer: Any, norm: Any) -> None:
    """Give a layer the factor and the shift of the norm after it, in place."""
    factor = (norm.running_var.double() + norm.eps).rsqrt()
    factor = factor if norm.weight is None else factor * norm.weight.double()
    shift = -norm.running_mean.double() * factor
    shift = shift if norm.bias is None else shift + norm.bias.double()
    if isinstance(layer, QuantLayer) and layer.output_scale is not None:
        factor, layer.output_scale = factor * layer.output_scale.abs().double(), None
    shift = shift if layer.bias is None else shift + factor * layer.bias.double()
    weight = layer.weight
    layer.bias = nn.Parameter(shift.to(weight.dtype))
    factor = factor.view([-1 if i == axis_of(layer) else 1 for i in range(weight.dim())])
    if isinstance(layer, QuantLayer) and layer.weight_quantizer is not None:
        layer.weight_quantizer = FoldedWeight(layer.weight_quantizer, factor.to(weight.dtype))
    else:
        layer.weight = nn.Parameter((weight.double() * factor).to(weight.dtype))
