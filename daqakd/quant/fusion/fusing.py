"""``fuse`` and ``unfuse``: a model's class gets a forward pass whose chains are fused.

Nothing in the model changes but the class of a root: modules, parameters, buffers and their names
stay, so a ``state_dict`` fits both ways. Where the code of a part cannot be traced, or hooks
surround it, the parts in it are roots of their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from torch import nn

from ..._arguments import check_module
from ..._errors import InputError
from ..admission import copy_of
from .plan import KEY, Fusion, fused_class, fusion_of, places_of
from .rewriting import Notes, rewrite
from .tracing import LEAVES, Untraceable, around_opaque, holds_quantized, required, trace


def _set_state(self: Any, state: dict[str, Any]) -> None:
    """Take an unpickled state, then fuse as before."""
    self.__class__ = type(self).__bases__[0]
    self.__setstate__(state)
    fuse_in_place(self)


def _revive(original: type[nn.Module], *args: Any) -> nn.Module:
    """Return an empty model that fuses when it has its state."""
    metaclass: Any = type(original)
    waiting: Any = metaclass(original.__name__, (original,), {"__setstate__": _set_state})
    revived: nn.Module = waiting.__new__(waiting, *args)
    return revived


def _analysed(root: nn.Module, opaque: dict[str, str]) -> Fusion:
    """Return the fusion of a root with these parts left alone.

    Raises:
        Untraceable: the code of the root, or of a part of it.
    """
    kind = type(root)
    if "forward" in vars(root):
        raise Untraceable("", "its forward is set on the instance")
    names = required(kind.forward)
    evaluation, training = (trace(root, mode, opaque) for mode in (False, True))
    leaves = evaluation.leaves | training.leaves
    places = places_of(root, evaluation.passed | training.passed, leaves)
    numbers = {place.name: number for number, place in enumerate(places, 1)}
    same = evaluation.source == training.source and evaluation.passed == training.passed
    trained = rewrite(root, training, numbers)
    evaluated = trained if same else rewrite(root, evaluation, numbers)
    return Fusion(kind, names, (evaluated, trained), places, len(root._modules))


def _inner_roots(root: nn.Module, fusion: Fusion) -> Iterator[tuple[str, nn.Module]]:
    """Yield the modules below a root that its own code does not reach into."""
    if fusion.modes is None:
        found = list(root.named_children())
    else:
        leaves = [place.name for place in fusion.places if place.kind is None]
        found = [(name, root.get_submodule(name)) for name in leaves]
    for name, module in found:
        if not isinstance(module, LEAVES) and holds_quantized(module):
            yield name, module


def _fuse_root(root: nn.Module, always: bool) -> Notes:
    """Fuse a root and those below it; return the notes that no class keeps."""
    if type(root).forward is nn.Module.forward:  # a list, which nobody calls
        fusion, reasons = Fusion(type(root)), {}
    else:
        found, opaque = around_opaque(root, _analysed)
        fusion = Fusion(type(root)) if found is None else found
        reasons = {n: f"its code cannot be traced: {why}" for n, why in opaque.items()}
    for name, module in _inner_roots(root, fusion):
        if name not in reasons and fusion.modes is not None:
            reasons[name] = "hooks on it, so that only what is inside is fused"
        below = _fuse_root(module, always=False)
        reasons |= {f"{name}.{n}" if n else name: why for n, why in below.items()}
    fusion = replace(fusion, refused=tuple(reasons.items()))
    if not always and not fusion.parts:
        return fusion.notes
    root.__class__ = fused_class(fusion, _revive)
    return {}


def fuse_in_place(model: nn.Module) -> None:
    """Fuse a model that is called as a whole."""
    unfuse(model)
    _fuse_root(model, always=True)


def unfuse(model: nn.Module) -> None:
    """Give every fused module its own class again, in place."""
    for module in model.modules():
        fusion = type(module).__dict__.get(KEY)
        if isinstance(fusion, Fusion):
            module.__class__ = fusion.original


@contextmanager
def unfused(model: nn.Module) -> Iterator[None]:
    """Have the parts of a model that are fused run as they were written within the block."""
    before = [(module, type(module)) for module in model.modules()]
    unfuse(model)
    try:
        yield
    finally:
        for module, kind in before:
            if type(module) is not kind:
                module.__class__ = kind


@contextmanager
def fused(model: nn.Module, wanted: bool = True) -> Iterator[None]:
    """Fuse a model in place within the block, or have it unfused there."""
    before = fusion_of(model) is not None
    (fuse_in_place if wanted else unfuse)(model)
    try:
        yield
    finally:
        (fuse_in_place if before else unfuse)(model)


def fuse(student: nn.Module) -> nn.Module:
    """Return a copy in which BatchNorm, sum, ReLU and quantizer run as one op where they can.

    A chain is a BatchNorm, perhaps a sum with a residual, perhaps a ReLU or ReLU6, and the
    quantizer of the layers that follow. Others that read the activation, such as a shortcut or a
    pool, get it as before. A ReLU that only quantizers without negative codes read is left out.
    Modules, parameters and buffers with their names stay, so a ``state_dict`` fits both ways, and
    ``calibrate``, files and optimizers take it as they take the student.

    The code is traced by ``torch.fx``, once. Where it cannot be, where hooks surround a member, in
    calibration, and under ``torch.compile`` and ``torch.export``, which fuse by themselves, the
    modules run as in the student. :func:`summary` lists what is fused, and what is not and why.
    After a change of a module's own settings or code, fuse again.

    Args:
        student: what :func:`quantize` returned; calibrated or not; it is not changed.

    Returns:
        A deep copy. Its outputs are the student's to rounding: a value that lies within it of a
        boundary between two levels may get the other.

    Raises:
        InputError: no module, or one without a quantized layer.
    """
    check_module("student", student)
    if not holds_quantized(student):
        raise InputError(
            "student: has no quantized layer, so nothing can be fused; pass what quantize() returns"
        )
    twin = copy_of(student)
    fuse_in_place(twin)
    return twin
