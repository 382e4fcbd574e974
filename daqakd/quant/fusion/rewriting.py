"""A graph with its chains fused, as code; and what became of every norm and quantized layer."""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from ..layers import QuantLayer
from .chain import Chain, ImpliedReLU
from .finding import (
    Found,
    Modules,
    called,
    describe,
    find,
    implied,
    norm_name,
    norms,
    refusal,
    tensors_of,
)
from .heads import ModuleHead
from .tracing import Traced

Part = Chain | ImpliedReLU
Notes = dict[str, str]  # what stays as it is: name below the root, and the reason


@dataclass(frozen=True)
class Rewritten:
    """The code of one mode, the parts in it, and the names of what stays, with reasons."""

    code: Callable[..., Any]
    source: str
    parts: tuple[Part, ...]
    notes: Notes


class Members:
    """The modules that generated code calls: it gets them in a list, at their numbers."""

    def __init__(self, graph: fx.Graph, numbers: Mapping[str, int]) -> None:
        self.graph, self.numbers = graph, numbers
        first = next(iter(graph.nodes))
        with graph.inserting_before(first):
            self.given = graph.placeholder("given_modules")
        self.nodes: dict[str, fx.Node] = {}

    def __call__(self, name: str) -> fx.Node:
        """Return the node of a module."""
        if name not in self.nodes:
            with self.graph.inserting_after(self.given):
                place = (self.given, self.numbers[name])
                node = self.graph.create_node(
                    "call_function", operator.getitem, place, {}, name.replace(".", "_")
                )
            self.nodes[name] = node
        return self.nodes[name]

    def of(self, part: Part) -> tuple[fx.Node | None, tuple[fx.Node, ...]]:
        """Return the nodes of an activation, if it is a module, and of the layers after it."""
        named = None if part.activation is None else part.activation.module
        return None if named is None else self(named), tuple(map(self, part.layers))

    def call_all(self) -> None:
        """Let every call of a module be one of those given."""
        for node in list(self.graph.nodes):
            if node.op == "call_module":
                node.args = (self(str(node.target)), *node.args)
                node.op, node.target = "call_method", "__call__"


def _insert(graph: fx.Graph, found: Found, members: Members) -> Chain:
    """Put the op in the place of a chain's nodes."""
    layers = tuple(dict.fromkeys(str(node.target) for node in found.group))
    others = [user for user in found.end.users if user not in found.group]
    both = bool(found.group and others)
    chain = Chain(found.head, found.sum, found.activation, layers, both)
    with graph.inserting_before(found.end):
        is_module = isinstance(found.head, ModuleHead)
        norm = members(found.head.name) if is_module else tensors_of(found.norm)[1:5]
        modules = norm, *members.of(chain)
        made = graph.call_function(chain, (*modules, found.x, found.residual))
        quantized = graph.call_function(operator.getitem, (made, 0)) if both else made
        plain = graph.call_function(operator.getitem, (made, 1)) if both else made
    for node in found.group:
        node.replace_input_with(found.end, quantized)
    found.end.replace_all_uses_with(plain)
    for node in reversed(found.nodes):
        graph.erase_node(node)
    return chain


def _drop(graph: fx.Graph, node: fx.Node, part: ImpliedReLU, members: Members) -> None:
    """Leave a ReLU to the quantizers after it."""
    with graph.inserting_before(node):
        made = graph.call_function(part, (*members.of(part), node.all_input_nodes[0]))
    node.replace_all_uses_with(made)
    graph.erase_node(node)


def _note_layers(graph: fx.Graph, modules: Modules, parts: list[Part], notes: Notes) -> None:
    """Note the layers that quantize their own input."""
    taken = {name for part in parts if isinstance(part, Chain) for name in part.layers}
    for node in graph.nodes:
        layer = called(node, modules)
        if not isinstance(layer, QuantLayer) or layer.act_quantizer is None:
            continue
        if str(node.target) not in taken:
            notes[str(node.target)] = _own_quantizer(node, modules)


def _own_quantizer(node: fx.Node, modules: Modules) -> str:
    """Return why a layer quantizes its own input, from where that comes from."""
    x = node.args[0] if node.args else None
    quantizer: Any = getattr(called(node, modules), "act_quantizer", None)
    if not quantizer.has_fused_op:
        return f"its quantizer, {quantizer.method}, has no fused op"
    if isinstance(x, fx.Node) and x.target is operator.getitem:
        made = x.all_input_nodes[0]
        if isinstance(made.target, Chain):
            return f"its quantizer differs from that of {made.target.layers[0]}, which is fused"
    if isinstance(x, fx.Node) and isinstance(x.target, ImpliedReLU):
        x = x.all_input_nodes[-1]
    if not isinstance(x, fx.Node):
        return "its input is not one tensor"
    return f"no BatchNorm right before it, but {describe(x, modules)}"


def rewrite(root: nn.Module, traced: Traced, numbers: Mapping[str, int]) -> Rewritten:
    """Fuse what can be fused in a traced graph, and return its code.

    The code takes the root, then its modules in a list, at these ``numbers``, then the arguments.
    """
    graph, modules = traced.graph, dict(root.named_modules())
    members = Members(graph, numbers)
    parts: list[Part] = []
    notes: Notes = {}
    for node in norms(graph, modules):
        found = find(node, modules)
        reason = found if isinstance(found, str) else refusal(found, modules)
        if isinstance(found, str) or reason is not None:
            notes[norm_name(node)] = str(reason)
        else:
            parts.append(_insert(graph, found, members))
    for node in list(graph.nodes):
        activation = implied(node, modules)
        if activation is not None:
            layers = tuple(dict.fromkeys(str(user.target) for user in node.users))
            relu = ImpliedReLU(activation, layers)
            parts.append(relu)
            _drop(graph, node, relu, members)
    _note_layers(graph, modules, parts, notes)
    members.call_all()
    code = graph.python_code("self")
    scope = dict(code.globals)
    exec(compile(code.src, f"<fused {type(root).__name__}>", "exec"), scope)
    return Rewritten(scope["forward"], code.src, tuple(parts), notes)
