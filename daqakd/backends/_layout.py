"""Memory order: elements are walked as they lie in ``empty_like(x)``."""

import torch
from torch import Tensor


def flat(x: Tensor) -> Tensor:
    """Return the elements of ``x`` in memory order, as one dimension; no copy for a dense ``x``."""
    order = sorted(range(x.dim()), key=lambda d: x.stride(d), reverse=True)
    ordered = x.permute(order)
    return ordered.reshape(-1) if ordered.is_contiguous() else x.reshape(-1)


def dense(x: Tensor) -> Tensor:
    """Return ``x`` if its elements fill memory without gaps, else a copy that does."""
    order = sorted(range(x.dim()), key=lambda d: x.stride(d), reverse=True)
    return x if x.permute(order).is_contiguous() else torch.empty_like(x).copy_(x)


def in_strides_of(values: Tensor, x: Tensor) -> Tensor:
    """Return ``values`` laid out as the dense ``x`` of the same shape."""
    same = values.stride() == x.stride()
    return values if same else torch.empty_like(x, dtype=values.dtype).copy_(values)


def memory_view(x: Tensor, axis: int | None) -> tuple[int, int, int]:
    """Return the dense ``x`` as ``[outer, channels, inner]``, channels running along ``axis``."""
    channels = 1 if axis is None else x.shape[axis]
    if axis is None or channels <= 1 or x.numel() == 0:
        return 1, channels, x.numel() // max(channels, 1)
    inner = x.stride(axis)
    return x.numel() // (channels * inner), channels, inner


def like(values: Tensor, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Give ``values`` the strides of ``torch.empty_like(x)`` and its dtype, or ``dtype``."""
    values = values.to(dtype or x.dtype)
    if torch.compiler.is_compiling():  # a graph has layouts of its own
        return values
    wanted = torch.empty_like(x, device="meta").stride()
    if values.stride() == wanted:
        return values
    return torch.empty_like(x, dtype=values.dtype).copy_(values)


def broadcast(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Shape a parameter, one for all or one per index of ``axis``, to broadcast against ``x``."""
    if axis is None:
        return parameter.reshape(())
    shape = [1] * x.dim()
    shape[axis] = -1
    return parameter.reshape(shape)


def reduce_to(terms: Tensor, parameter: Tensor, axis: int | None) -> Tensor:
    """Sum per-element ``terms`` to the shape of the ``parameter`` they belong to."""
    if axis is None:
        return terms.sum().reshape(parameter.shape)
    others = [d for d in range(terms.dim()) if d != axis % terms.dim()]
    return (terms.sum(others) if others else terms).reshape(parameter.shape)


def pack(codes: Tensor, x: Tensor, bits: int) -> Tensor:
    """Pack the codes of ``x``, in memory order of ``empty_like(x)``, the first in the lowest bits.

    The padding is zero. An exported program needs no mask and gets an empty one.
    """
    if torch.compiler.is_exporting():
        return codes.new_empty((0,), dtype=torch.uint8)
    ordered, per_byte = flat(like(codes, x, torch.uint8)), 8 // bits
    padded = torch.nn.functional.pad(ordered, (0, -ordered.numel() % per_byte))
    shifts = torch.arange(per_byte, device=codes.device, dtype=torch.uint8) * bits
    shifted: Tensor = padded.view(-1, per_byte) << shifts
    return shifted.sum(1, dtype=torch.uint8)


def unpack(packed: Tensor, bits: int, count: int) -> Tensor:
    """Undo :func:`pack`: the first ``count`` codes, ``uint8 [count]``."""
    shifts = torch.arange(8 // bits, device=packed.device, dtype=torch.uint8) * bits
    codes: Tensor = (packed[:, None] >> shifts) & (2**bits - 1)
    return codes.reshape(-1)[:count]


def unflat(values: Tensor, x: Tensor) -> Tensor:
    """Lay ``values`` ``[N]``, in memory order of ``x``, out with the shape and strides of ``x``."""
    like_x = torch.empty_like(x, dtype=values.dtype)
    flat(like_x).copy_(values)
    return like_x
