"""Which backend runs an op, and why the others cannot.

One predicate, :func:`can_run`, chooses, explains a refusal and fills ``daqakd doctor``.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.compiler import is_compiling

from .._errors import InputError, unknown
from .._ops import BACKENDS, STEMS
from . import native, triton
from .table import CHOICES, Rules, is_inlined, order_for, size_decides

FORMULA = "formula"  # what a graph may have in place of a backend: the reference's, as plain ATen

_forced: str | None = None

# by backend: why it cannot run an op on a device and dtype, or None
RUNNERS: Rules[Callable[[str, str, torch.dtype], str | None]] = Rules(
    native=native.can_run, triton=triton.can_run
)


def check_backend(name: str | None, source: str) -> str | None:
    """Return ``name`` when it names a backend or is None; ``source`` says where it came from."""
    if name is not None and (not isinstance(name, str) or name not in BACKENDS):
        raise unknown(f"backend in {source}", str(name), list(BACKENDS))
    return name


def can_run(op: str, backend: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when ``backend`` can run ``op`` there, else the reason in one sentence.

    Args:
        op: stem of the op, such as ``"lsq"``.
        backend: one of ``reference triton native``.
        device: device type of the tensors, such as ``"cuda"``.
        dtype: dtype of the first tensor.
    """
    if backend == "reference":
        return None
    if op not in STEMS:
        return f"there is no {op} op in this version"
    return RUNNERS[backend](op, device, dtype)


def forced_backend() -> str | None:
    """Return the backend set by ``use_backend`` or ``DAQAKD_BACKEND``, if any."""
    return _forced


def choose(op: str, x: Tensor, backend: str | None = None) -> str:
    """Return the backend for ``op`` on ``x``: the forced one, else the first that can run.

    An exported program gets the formula, so it needs no daqakd; a compiled one where the table
    says that this is faster, unless a backend is forced.

    Raises:
        InputError: the name is unknown, or the forced backend cannot run the op.
    """
    if is_compiling():  # the graph keeps the choice
        free = backend is None and _forced is None
        inlined = torch.compiler.is_exporting() or (free and is_inlined(op, x))
        return FORMULA if inlined else _decide(op, x, backend)
    if backend is not None:
        return _decide(op, x, backend)
    key = op, "cpu" if x.is_cpu else x.device, x.dtype, _forced
    found = CHOICES.get(key)
    if found is None:
        found = _decide(op, x, None)
        if not size_decides(op, x):
            CHOICES[key] = found
    return found


def _decide(op: str, x: Tensor, backend: str | None) -> str:
    wanted = check_backend(backend, "backend=") or _forced
    if wanted is not None:
        reason = can_run(op, wanted, x.device.type, x.dtype)
        if reason is None:
            return wanted
        raise InputError(f"backend {wanted!r} was asked for but cannot run {op!r}: {reason}")
    for name in order_for(op, x):
        if can_run(op, name, x.device.type, x.dtype) is None:
            return name
    return "reference"


@contextmanager
def use_backend(name: str | None) -> Iterator[None]:
    """Force a backend within a ``with`` block; None restores the automatic choice.

    >>> with use_backend("reference"):
    ...     forced_backend()
    'reference'
    """
    global _forced
    before, _forced = _forced, check_backend(name, "use_backend()")
    try:
        yield
    finally:
        _forced = before


_forced = check_backend(os.environ.get("DAQAKD_BACKEND") or None, "DAQAKD_BACKEND")
