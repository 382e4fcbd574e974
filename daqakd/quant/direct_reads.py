"""Which layers' weights their parents read themselves: these layers cannot be swapped.

``F.linear(x, self.qkv.weight)`` goes past the layer's forward, so a quantized ``qkv`` would compute
in full precision. Found in the byte code of the parents' forward passes, which is there even where
the source is not; what it misses, :func:`daqakd.calibrate` sees as a layer that never ran.
"""

import dis
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from torch import nn
from torch.jit import ScriptModule

from .kinds import KINDS, kind_of

# what tells about a weight but does not compute with it
ABOUT = {"dtype", "device", "shape", "size", "ndim", "dim", "numel", "requires_grad", "is_cuda"}
CONSTANT = {"LOAD_CONST", "LOAD_GLOBAL", "LOAD_NAME"}
# the fast path in these, which reads the weights, is switched off in a student (see fast_path.py)
SWITCHED_OFF: tuple[Any, ...] = (
    *(nn.TransformerEncoder.forward, nn.TransformerEncoderLayer.forward),
    nn.MultiheadAttention.forward,  # of which a student has another
)
WEIGHTS = {name for kind in KINDS.values() for name in kind.tensors if name.endswith("weight")}


def _codes(code: CodeType) -> Iterator[CodeType]:
    """Yield a function's code and that of the functions defined in it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _chains(code: CodeType, own: str) -> Iterator[tuple[str, ...]]:
    """Yield what is looked up from ``own`` (self), by attributes: ``("qkv", "weight")``."""
    chain: list[str] | None = None
    called: Any = None  # the function whose first argument the chain is
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD") and chain is not None:
            chain.append(step.argval)
            continue
        if chain and called != "isinstance":
            yield tuple(chain)
        last = step.argval[-1:] if isinstance(step.argval, tuple) else (step.argval,)
        loads_self = "LOAD_" in step.opname and step.opname not in CONSTANT and last == (own,)
        if step.opname not in ("PUSH_NULL", "CACHE") and not loads_self:
            called = step.argval if step.opname == "LOAD_GLOBAL" else None
        chain = [] if loads_self else None


def _looked_up(kind: type[nn.Module]) -> Iterator[tuple[str, ...]]:
    """Yield the chains in a class's forward and in the methods it names."""
    waiting, seen = ["forward"], {"forward"}
    while waiting:
        member = getattr(kind, waiting.pop(), None)
        found = member.fget if isinstance(member, property) else member
        function = inspect.unwrap(found) if callable(found) else found
        if not isinstance(function, FunctionType):
            continue
        code = function.__code__
        own = code.co_varnames[0] if code.co_argcount else ""
        for chain in (c for part in _codes(code) for c in _chains(part, own)):
            yield chain
            if chain[0] not in seen and chain[0] not in vars(nn.Module):
                seen.add(chain[0])
                waiting.append(chain[0])


def _read_layer(module: nn.Module, chain: tuple[str, ...]) -> nn.Module | None:
    """Return the layer below ``module`` whose weight the chain reads."""
    found: Any = module
    for i, name in enumerate(chain):
        kind = kind_of(found) if isinstance(found, nn.Module) else None
        if i and kind is not None and name in kind.tensors and name in WEIGHTS:
            return None if chain[i + 1 : i + 2] and chain[i + 1] in ABOUT else found
        found = found._modules.get(name) if isinstance(found, nn.Module) else None
    return None


def directly_read(model: nn.Module) -> dict[int, str]:
    """Return the layers whose weight a parent computes with: id to the name of its type."""
    chains: dict[type[nn.Module], set[tuple[str, ...]]] = {}
    found: dict[int, str] = {}
    for module in model.modules():
        kind = type(module)
        if isinstance(module, ScriptModule) or inspect.unwrap(kind.forward) in SWITCHED_OFF:
            continue
        if kind not in chains:
            chains[kind] = {chain for chain in _looked_up(kind) if WEIGHTS & {*chain[1:]}}
        layers = (_read_layer(module, chain) for chain in chains[kind])
        found |= {id(layer): kind.__name__ for layer in layers if layer is not None}
    return found
