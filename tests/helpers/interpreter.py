"""Triton's interpreter, made as strict as a GPU is: imported where ``TRITON_INTERPRET=1``.

Programs run in a random order, the same on every run; every access must lie within the elements of
a tensor argument; what a masked load leaves out is undefined, and so poisoned; numbers round to the
nearest 16-bit number.
"""

import inspect
import random
from functools import wraps
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves
from triton import language
from triton.runtime import interpreter

Builder = interpreter.InterpreterBuilder
is_builtin = language.core.is_builtin
PATCHED: tuple[Any, ...] = (language, language.core, language.math)
PATCHED += (language.core.tensor, language.core.tensor_descriptor_base)
BUILTINS = {owner: [n for n, _ in inspect.getmembers(owner, is_builtin)] for owner in PATCHED}


class OutOfBoundsError(RuntimeError):
    """An access outside every tensor that the kernel was given."""


class Strictness:
    """What the running launch may touch, and the order of its programs."""

    def __init__(self) -> None:
        self.starts, self.ends = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
        self.order: list[int] = []
        self.random = random.Random(7)

    def take(self, arguments: Any) -> None:
        """Let the launch touch the elements of the tensors among its arguments."""
        tensors = [leaf for leaf in tree_leaves(arguments) if isinstance(leaf, Tensor)]
        spans = sorted(span_of(tensor) for tensor in tensors if tensor.numel() > 0)
        self.starts = np.array([start for start, _ in spans], np.uint64)
        ends = np.array([end for _, end in spans], np.uint64)
        self.ends = np.maximum.accumulate(ends) if len(ends) else ends

    def check(self, pointers: np.ndarray, mask: np.ndarray, size: int, verb: str) -> None:
        """Refuse addresses of no tensor; of views of one memory, the widest counts."""
        touched = np.asarray(pointers, np.uint64)[np.asarray(mask, bool)]
        place = np.searchsorted(self.starts, touched, side="right") - 1
        inside = place >= 0
        if len(self.ends):
            inside &= touched + np.uint64(size) <= self.ends[np.maximum(place, 0)]
        if not np.all(inside):
            raise OutOfBoundsError(f"{int((~inside).sum())} elements to {verb} are of no tensor")


def span_of(x: Tensor) -> tuple[int, int]:
    """Return the addresses of the first element and after the last."""
    last = sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return x.data_ptr(), x.data_ptr() + (last + 1) * x.element_size()


strictness = Strictness()


def wrapped(owner: Any, name: str) -> Any:
    """Replace a method by what the decorated function makes of it."""

    def decorate(function: Any) -> Any:
        original = getattr(owner, name)
        setattr(owner, name, wraps(original)(lambda *args: function(original, *args)))
        return function

    return decorate


@wrapped(interpreter.GridExecutor, "_init_args_hst")
def _(original, self, args, kwargs):
    found = original(self, args, kwargs)
    strictness.take(found)
    return found


@wrapped(Builder, "set_grid_dim")
def _(original, self, x, y, z):
    strictness.order = strictness.random.sample(range(x), x)
    original(self, x, y, z)


@wrapped(Builder, "set_grid_idx")
def _(original, self, x, y, z):
    original(self, strictness.order[x], y, z)


def element_size(pointers: Any) -> int:
    return np.dtype(interpreter._get_np_dtype(pointers.get_element_ty())).itemsize


def poison(pointers: Any) -> Any:
    """Return what stands where nothing is loaded: ones in every bit."""
    dtype = interpreter._get_np_dtype(pointers.get_element_ty())
    bits = np.full(pointers.data.shape, -1, f"i{max(1, np.dtype(dtype).itemsize)}")
    return interpreter.TensorHandle(bits.view(dtype), pointers.get_element_ty())


@wrapped(Builder, "create_masked_load")
def _(original, self, pointers, mask, other, *rest):
    strictness.check(pointers.data, mask.data, element_size(pointers), "read")
    return original(self, pointers, mask, poison(pointers) if other is None else other, *rest)


@wrapped(Builder, "create_masked_store")
def _(original, self, pointers, value, mask, *rest):
    strictness.check(pointers.data, mask.data, element_size(pointers), "write")
    return original(self, pointers, value, mask, *rest)


@wrapped(Builder, "create_atomic_rmw")
def _(original, self, op, pointers, value, mask, *rest):
    strictness.check(pointers.data, mask.data, element_size(pointers), "add to")
    return original(self, op, pointers, value, mask, *rest)


@wrapped(interpreter, "_patch_builtin")
def _(original, owner, builder, scope):
    """Looking for them at every call of a function takes two fifths of the interpreter's time."""
    for name in BUILTINS[owner]:
        member = getattr(owner, name)
        if is_builtin(member):
            interpreter._patch_attr(owner, name, member, builder, scope)


@wrapped(interpreter, "_convert_float")
def _(original, data, source, target, mode):
    """The interpreter cuts float32 to bfloat16; a GPU rounds to the nearest, ties to even."""
    if source != language.float32 or target != language.bfloat16:
        return original(data, source, target, mode)
    values = torch.from_numpy(np.ascontiguousarray(data)).bfloat16()
    return values.view(torch.int16).numpy().view(np.uint16)
