"""Chains in a graph: which nodes one op can stand for, and why others stay as they are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..layers import QuantLayer
from .chain import ACTIVATIONS, SUMS, Activation, Chain, Sum
from .heads import FunctionHead, Head, ModuleHead
from .members import NORMS, activation_kind
from .proxies import IN_PLACE

Modules = Mapping[str, nn.Module]
ARGUMENTS: dict[str, Any] = {  # of batch_norm, with their defaults
    **dict.fromkeys(("input", "running_mean", "running_var", "weight", "bias")),
    "training": False,
    "momentum": 0.1,
    "eps": 1e-5,
}


@dataclass
class Found:
    """The nodes of a chain, and what it does."""

    norm: fx.Node
    head: Head
    x: fx.Node
    sum: Sum | None = None
    residual: fx.Node | None = None
    activation: Activation | None = None
    nodes: list[fx.Node] = field(default_factory=list)
    group: list[fx.Node] = field(default_factory=list)  # calls of the layers it quantizes for

    @property
    def end(self) -> fx.Node:
        """The last member."""
        return self.nodes[-1]

    @property
    def is_worth_it(self) -> bool:
        """Whether there is more than a norm to run at once."""
        return len(self.nodes) > 1 or bool(self.group)


def called(node: fx.Node, modules: Modules) -> nn.Module | None:
    """Return the module that a node calls."""
    return modules.get(str(node.target)) if node.op == "call_module" else None


def describe(node: fx.Node, modules: Modules) -> str:
    """Return what a node is, for a reader."""
    module = called(node, modules)
    if module is not None:
        return type(module).__name__
    if isinstance(node.target, Chain):
        return f"the chain of {node.target.head.name}"
    if node.op in ("placeholder", "output"):
        return {"placeholder": "the model's input", "output": "the model's output"}[node.op]
    return str(getattr(node.target, "__name__", node.target))


def activation_of(node: fx.Node, modules: Modules) -> Activation | None:
    """Return the ReLU or ReLU6 that a node is."""
    module = called(node, modules)
    if module is not None and len(node.args) == 1 and not node.kwargs:
        kind = activation_kind(module)
        return None if kind is None else Activation(kind, str(node.target), None)
    known = ACTIVATIONS.get(node.target) if node.op.startswith("call_") else None
    if known is None or not node.args or not node.kwargs.keys() <= {"inplace"}:
        return None
    return Activation(known[0], None, known[1])


def is_in_place(node: fx.Node, modules: Modules) -> bool:
    """Return whether a node changes its first input, as far as its kind tells."""
    module = called(node, modules)
    if module is not None:
        return bool(getattr(module, "inplace", False))
    name = str(getattr(node.target, "__name__", node.target))
    if node.op == "call_method" or node.op == "call_function":
        ends = name.endswith("_") and not name.endswith("__")
        in_operator = IN_PLACE.get(name) is node.target
        flagged = bool(node.kwargs.get("inplace")) or "out" in node.kwargs
        return ends or in_operator or flagged or (node.target in ACTIVATIONS and True in node.args)
    return False


def _may_change(node: fx.Node, modules: Modules) -> bool:
    """Return whether a node may change an input, strangers' modules included."""
    module = called(node, modules)
    stranger = module is not None and not isinstance(module, QuantLayer)
    own = stranger and not type(module).__module__.startswith(("torch.nn.", "daqakd."))
    return own or is_in_place(node, modules)


def _sum_of(node: fx.Node, norm: fx.Node) -> tuple[Sum, fx.Node] | None:
    """Return the addition that a node is, and its other operand."""
    known = SUMS.get(node.target) if node.op in ("call_function", "call_method") else None
    if known is None or len(node.args) != 2 or node.kwargs.get("alpha", 1) != 1:
        return None
    first = node.args[0] is norm
    other = node.args[1] if first else node.args[0]
    if not node.kwargs.keys() <= {"alpha"} or not isinstance(other, fx.Node) or other is norm:
        return None
    if known[1] and not first:  # it changes the other operand, which others may hold
        return None
    return Sum(known[0], first), other


def quantizing(node: fx.Node, x: fx.Node, modules: Modules) -> Any:
    """Return the layer whose quantizer alone sees ``x`` in this call, if it is one."""
    layer = called(node, modules)
    if not isinstance(layer, QuantLayer) or node.args != (x,) or node.kwargs:
        return None
    quantizer = layer.act_quantizer
    return None if quantizer is None or not quantizer.has_fused_op else layer


def _group(end: fx.Node, modules: Modules) -> list[fx.Node]:
    """Return the consumers whose quantizers equal that of the first that has one."""
    layers = [(node, quantizing(node, end, modules)) for node in end.users]
    keyed = [(n, layer.act_quantizer.cache_key()) for n, layer in layers if layer is not None]
    return [node for node, key in keyed if key == keyed[0][1]]


def _only_user(node: fx.Node) -> fx.Node | None:
    return next(iter(node.users)) if len(node.users) == 1 else None


def find(norm: fx.Node, modules: Modules) -> Found | str:
    """Return the chain that begins at a norm, perhaps the norm alone, or why there can be none."""
    head = _head_of(norm, modules)
    if isinstance(head, str):
        return head
    found = Found(norm, head, norm.all_input_nodes[0], nodes=[norm])
    user = _only_user(norm)
    addition = None if user is None else _sum_of(user, norm)
    if user is not None and addition is not None:
        found.sum, found.residual = addition
        found.nodes.append(user)
        user = _only_user(user)
    activation = None if user is None else activation_of(user, modules)
    if user is not None and activation is not None:
        found.activation = activation
        found.nodes.append(user)
    found.group = _group(found.end, modules)
    return found


def _between(found: Found) -> Iterator[fx.Node]:
    """Yield the nodes from the norm to the end that are no members."""
    node = found.norm.next
    while node is not found.end and found.norm is not found.end:
        if node not in found.nodes:
            yield node
        node = node.next


def _is_fresh(node: fx.Node, modules: Modules) -> bool:
    """Return whether a node's result is a tensor that nothing else can hold."""
    return isinstance(called(node, modules), QuantLayer) or _is_norm(node, modules)


def moves_past_change(found: Found, modules: Modules) -> str | None:
    """Return what might change an input of the chain before its end, where the op reads it."""
    for node in _between(found):
        if not _may_change(node, modules):
            continue
        inputs = node.all_input_nodes
        own = found.x in inputs or found.residual in inputs
        if own or (is_in_place(node, modules) and not all(_is_fresh(n, modules) for n in inputs)):
            return describe(node, modules)
    return None


def refusal(found: Found, modules: Modules) -> str | None:
    """Return why a norm stays as it is, or None for a chain."""
    if not found.is_worth_it:
        users = [describe(node, modules) for node in found.end.users]
        if len(users) == 1 and isinstance((chain := next(iter(found.end.users)).target), Chain):
            return f"it is the residual of {chain.head.name}"
        several = "several consumers, none of which quantizes it: " if len(users) > 1 else ""
        return several + f"{', '.join(users[:3]) or 'nothing'} cannot be fused with it"
    changed = moves_past_change(found, modules)
    return None if changed is None else f"{changed} may change its input or what is added to it"


def _head_of(norm: fx.Node, modules: Modules) -> Head | str:
    """Return the norm that a chain can begin with, or why it cannot."""
    module, name = called(norm, modules), norm_name(norm)
    same = [n for n in norm.graph.nodes if _is_norm(n, modules) and norm_name(n) == name]
    if len(same) > 1:
        return "it is called more than once"
    if module is None:
        return _function_head(norm)
    if type(module) not in NORMS:
        return f"{type(module).__name__} is not exactly BatchNorm1d, BatchNorm2d or BatchNorm3d"
    if len(norm.args) != 1 or norm.kwargs:
        return "it is called with more than its input"
    return ModuleHead(name)


def tensors_of(norm: fx.Node) -> tuple[Any, ...]:
    """Return the arguments of a call of ``batch_norm``, defaults included."""
    values = dict(zip(ARGUMENTS, norm.args, strict=False)) | norm.kwargs
    return tuple(values.get(name, default) for name, default in ARGUMENTS.items())


def _function_head(norm: fx.Node) -> Head | str:
    x, *tensors, training, momentum, eps = tensors_of(norm)
    if not isinstance(x, fx.Node) or norm.all_input_nodes[0] is not x:
        return "its input is no tensor"
    if not all(t is None or (isinstance(t, fx.Node) and t.op == "get_attr") for t in tensors):
        return "its weights are computed"
    if any(isinstance(value, fx.Node) for value in (training, momentum, eps)):
        return "its settings are computed"
    return FunctionHead(norm_name(norm), training, momentum, eps)


def norm_name(norm: fx.Node) -> str:
    """Return the name of the module that a norm is, or whose code calls ``batch_norm``."""
    return str(norm.target) if norm.op == "call_module" else str(norm.meta["inside"])


def _is_norm(node: fx.Node, modules: Modules) -> bool:
    function = node.op == "call_function" and node.target is nn.functional.batch_norm
    return function or isinstance(called(node, modules), _BatchNorm)


def norms(graph: fx.Graph, modules: Modules) -> list[fx.Node]:
    """Return the calls of norms in a graph."""
    return [node for node in graph.nodes if _is_norm(node, modules)]


def implied(node: fx.Node, modules: Modules) -> Activation | None:
    """Return the ReLU that a node is, where only quantized layers read it and nothing changes x."""
    activation = activation_of(node, modules)
    if activation is None or activation.kind != "relu" or not node.users:
        return None
    x = node.all_input_nodes[0]
    if not all(quantizing(user, node, modules) is not None for user in node.users):
        return None
    fresh = _is_fresh(x, modules) or not is_in_place(node, modules)
    return activation if fresh and len(x.users) == 1 else None
