"""A student's forward pass as a graph, or why it has none.

Quantized layers are leaves of the graph, and so is whatever holds none and whatever has hooks, but
for norms of strangers, which may have a norm and an activation in their code.
"""

import inspect
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..._errors import first_line
from ..attention import QuantMultiheadAttention
from ..layers import QuantLayer
from ..placed import PlacedOperation
from .members import is_hooked
from .proxies import Recording

Result = TypeVar("Result")


class Untraceable(Exception):
    """The code of the module at ``name``, below the root, cannot be traced."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(reason)
        self.name, self.reason = name, reason


def holds_quantized(module: nn.Module) -> bool:
    """Return whether a quantized layer is somewhere in it."""
    return any(isinstance(m, QuantLayer) for m in module.modules())


def required(forward: Callable[..., Any]) -> tuple[str, ...]:
    """Return the parameters after ``self`` without a default, which tracing makes symbolic.

    Raises:
        Untraceable: there is none, or one that cannot be passed by position.
    """
    parameters = list(inspect.signature(forward).parameters.values())[1:]
    needed = [p for p in parameters if p.default is p.empty]
    if not needed or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in needed):
        raise Untraceable("", "its forward takes * or keyword-only arguments, or none")
    return tuple(p.name for p in needed)


def _around() -> tuple[Any, ...]:
    """Return the modes that a graph does not record, as they are."""
    return (
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_enabled("cuda"),
        torch._C._autograd._top_saved_tensors_default_hooks(True) is None,
    )


LEAVES = (QuantLayer, QuantMultiheadAttention, PlacedOperation)  # whose code is not looked into


class StudentTracer(fx.Tracer):
    """Traces a root; modules at the names in ``opaque`` are leaves, too."""

    def __init__(self, opaque: Mapping[str, str]) -> None:
        super().__init__()
        self.proxy_buffer_attributes = True
        self.opaque = opaque
        self.inside: list[str] = []  # the modules whose code is running
        self.passed: set[str] = set()  # the names of those whose code was traced
        self.around = _around()

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Return whether a call of it is one node."""
        if isinstance(m, LEAVES) or module_qualified_name in self.opaque or is_hooked(m):
            return True
        own_norm = isinstance(m, _BatchNorm) and not type(m).__module__.startswith("torch.")
        seen_through = own_norm or type(m) in (nn.Sequential, nn.Identity)
        return not seen_through and not holds_quantized(m)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        """Trace a call, and note whose code fails."""
        name = self.path_of_module(m)
        if not self.is_leaf_module(m, name):
            self.passed.add(name)
        self.inside.append(name)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Untraceable:
            raise
        except Exception as error:  # whatever a stranger's code raises
            raise Untraceable(name, first_line(error)) from error
        finally:
            self.inside.pop()

    def create_args_for_root(
        self, root_fn: Callable[..., Any], is_module: bool, concrete_args: Any = None
    ) -> tuple[Any, list[Any]]:
        """Make the required parameters symbolic, and leave the others at their defaults."""
        names = required(root_fn)
        return root_fn, [self.root, *(self.create_proxy("placeholder", n, (), {}) for n in names)]

    def create_arg(self, a: Any) -> Any:
        """Refuse tensors that the code makes: they would be constants of the graph."""
        if isinstance(a, Tensor) and not isinstance(a, nn.Parameter):
            known = a in self.tensor_attrs or any(a is b for b in self.root.buffers())
            if not known:
                raise Untraceable(self._where(), "it makes a tensor that does not depend on inputs")
        return super().create_arg(a)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """Return the symbolic value of a node."""
        return Recording(node, self)

    def create_node(self, kind: str, *args: Any, **kwargs: Any) -> fx.Node:
        """Refuse what runs under a mode of its own, such as ``no_grad`` or a checkpoint."""
        if kind != "output" and _around() != self.around:
            reason = "parts of it run under their own grad mode, autocast or saved-tensor hooks"
            raise Untraceable(self._where(), reason)
        node = super().create_node(kind, *args, **kwargs)
        node.meta["inside"] = self._where()
        return node

    def _where(self) -> str:
        """Return the module whose own code is running; a leaf's is its caller's."""
        return next((name for name in reversed(self.inside) if name in self.passed), "")


def _is_same(now: Any, before: Any, shallow: Any) -> bool:
    """Return whether it is the object of before, with the contents of before."""
    if now is not before:
        return False
    if isinstance(now, dict):
        return list(now) == list(shallow) and all(now[key] is shallow[key] for key in now)
    if isinstance(now, list):
        return len(now) == len(shallow) and all(map(lambda a, b: a is b, now, shallow))
    return not isinstance(now, set) or now == shallow


def _restore(module: nn.Module, before: dict[str, tuple[Any, Any]]) -> str | None:
    """Undo what changed in a module's attributes; return the name of one that had."""
    state = module.__dict__
    changed = [k for k in state if k not in before]
    changed += [k for k, v in before.items() if k not in state or not _is_same(state[k], *v)]
    if not changed:
        return None
    for value, shallow in before.values():
        if isinstance(value, list):
            value[:] = shallow
        elif isinstance(value, dict | set):
            value.clear()
            value.update(shallow)
    state.clear()
    state.update({key: value for key, (value, _) in before.items()})
    return changed[0]


@contextmanager
def _unchanged(root: nn.Module) -> Iterator[None]:
    """Leave modules and random numbers as they were, and refuse code that changes them."""
    kinds = (dict, list, set)
    before = {
        m: {k: (v, copy(v) if isinstance(v, kinds) else None) for k, v in vars(m).items()}
        for m in root.modules()
    }
    drawn = torch.get_rng_state(), random.getstate()
    try:
        yield
    finally:
        found = {m: _restore(m, state) for m, state in before.items()}
        same = torch.equal(drawn[0], torch.get_rng_state()) and drawn[1] == random.getstate()
        torch.set_rng_state(drawn[0])
        random.setstate(drawn[1])
    for name, module in root.named_modules():
        if found[module] is not None:
            raise Untraceable(name, f"its forward pass sets {found[module]}")
    if not same:
        raise Untraceable("", "it draws random numbers that do not depend on inputs")


def around_opaque(
    root: nn.Module, attempt: Callable[[nn.Module, dict[str, str]], Result]
) -> tuple[Result | None, dict[str, str]]:
    """Return what ``attempt`` makes of a root, and the parts that it left alone, with reasons.

    It is called with the parts that cannot be traced until there are no more of these; None where
    the root is one of them.
    """
    opaque: dict[str, str] = {}
    while True:
        try:
            return attempt(root, opaque), opaque
        except Untraceable as error:
            if error.name in ("", *opaque):
                return None, {"": error.reason}
            kind = type(root.get_submodule(error.name))
            alike = [n for n, m in root.named_modules() if type(m) is kind and n]
            names = [error.name] if kind is nn.Sequential else alike
            opaque |= dict.fromkeys(names, error.reason)


class Traced:
    """A graph, with the names of the modules whose code it stands for and of those it calls."""

    def __init__(self, root: nn.Module, training: bool, opaque: Mapping[str, str]) -> None:
        modes = {m: m.training for m in root.modules()}
        tracer = StudentTracer(opaque)
        try:
            with _unchanged(root):
                for module in modes:
                    module.training = training
                self.graph = tracer.trace(root)
                for module, mode in modes.items():
                    module.training = mode
        except Untraceable:
            raise
        except Exception as error:  # whatever a stranger's code raises
            raise Untraceable("", first_line(error)) from error
        self.passed = tracer.passed
        self.leaves = {str(n.target) for n in self.graph.nodes if n.op == "call_module"}
        self.source: str = self.graph.python_code("self").src


def trace(root: nn.Module, training: bool, opaque: Mapping[str, str]) -> Traced:
    """Trace in training or in evaluation, with gradients and without, which must agree.

    Raises:
        Untraceable: the code cannot be traced, or is not the same each time.
    """
    with torch.enable_grad():
        first = Traced(root, training, opaque)
    with torch.no_grad():
        second = Traced(root, training, opaque)
    if first.source != second.source:
        raise Untraceable("", "it is not the same each time, or with gradients as without")
    return first
