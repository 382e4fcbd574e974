"""What a fused class knows, and the class itself: a subclass whose forward pass is fused code."""

import copy
import copyreg
import functools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .members import any_global_hook, is_hooked
from .rewriting import Notes, Part, Rewritten

KEY = "_daqakd_fusion"  # of a fused class
NEW_OBJECT = vars(copyreg)["__newobj__"]  # how a class without a way of its own is pickled


@dataclass(frozen=True)
class Place:
    """A module below the root: where it is, and what it was where that matters."""

    name: str
    parent: int  # its number in the list of places; the root is 0
    key: str  # its name there
    kind: type | None = None  # of those whose code was traced, and of those that hold others
    children: int = 0
    is_called: bool = False  # whether its code was traced

    def change(self, module: nn.Module) -> str | None:
        """Return what is other than it was."""
        if type(module) is not self.kind or len(module._modules) != self.children:
            return "another module than there was"
        return "hooks on it" if self.is_called and is_hooked(module) else None


def places_of(root: nn.Module, called: Collection[str], leaves: Iterable[str]) -> tuple[Place, ...]:
    """Return the modules whose code was traced, the leaves, and all that hold these."""
    names = {tuple(name.split(".")) for name in (*called, *leaves)}
    above = {path[:i] for path in names for i in range(1, len(path))}
    numbers: dict[tuple[str, ...], int] = {(): 0}
    places: list[Place] = []
    for path in sorted(names | above, key=lambda path: (len(path), path)):
        name = ".".join(path)
        module, place = root.get_submodule(name), (name, numbers[path[:-1]], path[-1])
        numbers[path] = len(numbers)
        holds = path in above or name in called
        facts = (type(module), len(module._modules), name in called) if holds else ()
        places.append(Place(*place, *facts))
    return tuple(places)


@dataclass(frozen=True, eq=False)
class Fusion:
    """What a fused class knows: code by mode, the modules that it stands for, and what stays."""

    original: type[nn.Module]
    parameters: tuple[str, ...] = ()
    modes: tuple[Rewritten, Rewritten] | None = None  # evaluation, training
    places: tuple[Place, ...] = ()
    children: int = 0  # of the root
    refused: tuple[tuple[str, str], ...] = ()  # parts whose code cannot be traced, or has hooks

    @property
    def parts(self) -> tuple[Part, ...]:
        """The chains, as in training."""
        return () if self.modes is None else self.modes[1].parts

    @property
    def notes(self) -> Notes:
        """What stays as it is, with reasons."""
        return dict(self.refused) | ({} if self.modes is None else self.modes[1].notes)

    def takes(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Return whether the code is of a call with these arguments."""
        if self.modes is None or len(args) + len(kwargs) != len(self.parameters):
            return False
        return not kwargs or all(name in self.parameters for name in kwargs)

    def modules(self, root: nn.Module) -> list[nn.Module] | str:
        """Return the root and the modules at the places, or why the code stands no more for it."""
        if any_global_hook():
            return "hooks on all modules"
        if len(root._modules) != self.children:
            return "other modules in it than there were"
        found: list[Any] = [root]
        for place in self.places:
            module = found[place.parent]._modules.get(place.key)
            if place.kind is not None and (why := place.change(module)) is not None:
                return f"{place.name}: {why}"
            found.append(module)
        return self._other_mode(found) or found

    def _other_mode(self, modules: list[nn.Module]) -> str | None:
        """Return which traced code might take another branch than the root's mode says."""
        if self.modes is None or self.modes[0] is self.modes[1]:
            return None
        for place, module in zip(self.places, modules[1:], strict=True):
            if place.is_called and module.training != modules[0].training:
                return f"{place.name}: in another mode than the whole"
        return None


def _is_traced() -> bool:
    """Return whether a compiler or an exporter is reading: it fuses by itself."""
    return torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None


def _forward(fusion: Fusion) -> Callable[..., Any]:
    original: Any = fusion.original.forward

    @functools.wraps(original)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if _is_traced() or fusion.modes is None or not fusion.takes(args, kwargs):
            return original(self, *args, **kwargs)
        modules = fusion.modules(self)
        if isinstance(modules, str):
            return original(self, *args, **kwargs)
        return fusion.modes[self.training].code(self, modules, *args, **kwargs)

    return forward


def fused_class(fusion: Fusion, revive: Callable[..., nn.Module]) -> type[nn.Module]:
    """Return a subclass of the original that runs the fused code; copies share it.

    Pickles hold the original class: ``revive`` makes of it, and of what its ``__new__`` takes, an
    object that fuses when it gets its state.
    """
    original: Any = fusion.original

    def reduce(self: Any, protocol: Any) -> Any:
        reduced: Any = original.__reduce_ex__(self, protocol)
        if reduced[0] is not NEW_OBJECT:  # the class has a way of its own
            return reduced
        return (revive, (original, *reduced[1][1:]), *reduced[2:])

    def deepcopy(self: Any, memo: dict[int, Any]) -> Any:
        reduced: Any = original.__reduce_ex__(self, 4)
        twin: Any = memo.setdefault(id(self), made.__new__(made, *reduced[1][1:]))
        twin.__setstate__(copy.deepcopy(reduced[2], memo))
        return twin

    own = ("__module__", "__qualname__", "__doc__")
    members: dict[str, Any] = {name: getattr(original, name) for name in own}
    members |= {KEY: fusion, "forward": _forward(fusion), "__reduce_ex__": reduce}
    if not hasattr(original, "__deepcopy__"):
        members["__deepcopy__"] = deepcopy
    metaclass: Any = type(original)
    made: Any = metaclass(original.__name__, (original,), members)
    kind: type[nn.Module] = made
    return kind


def fusion_of(module: nn.Module) -> Fusion | None:
    """Return what a fused root knows, None of another module."""
    found = getattr(type(module), KEY, None)
    return found if isinstance(found, Fusion) else None
