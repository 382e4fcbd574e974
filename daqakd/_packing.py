"""Codes of 1 to 8 bits, packed densely: what a quantized model weighs on disk.

The format is one little-endian bit stream: code i takes the bits from ``i * bits`` on.
"""

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ._errors import InputError

_host: Any
try:
    _host = import_module("daqakd._host")
except ImportError:  # installed without a compiler: NumPy does the same, slower
    _host = None

Bytes = NDArray[np.uint8]


def _check_bits(bits: int) -> None:
    if not 1 <= bits <= 8:
        raise InputError(f"bits: expected 1 to 8, got {bits}")


def packed_size(count: int, bits: int) -> int:
    """Return how many bytes ``count`` codes take."""
    return (count * bits + 7) // 8


def pack_codes(codes: NDArray[Any], bits: int) -> Bytes:
    """Pack codes in [0, 2^bits) of any shape, in C order, into ``uint8 [ceil(N * bits / 8)]``.

    Raises:
        InputError: a width outside 1 to 8, codes that are no integers or do not fit.

    >>> pack_codes(np.array([1, 2, 3]), 2)
    array([57], dtype=uint8)
    """
    _check_bits(bits)
    if codes.dtype.kind not in "iu":
        raise InputError(f"codes: expected integers, got {codes.dtype}")
    if codes.size and not 0 <= int(codes.min()) <= int(codes.max()) < 2**bits:
        raise InputError(
            f"codes: expected values in [0, {2**bits - 1}], got [{codes.min()}, {codes.max()}];"
            " subtract the lowest code first"
        )
    flat = np.ascontiguousarray(codes, dtype=np.uint8).reshape(-1)
    if _host is not None:
        packed: Bytes = _host.pack(flat, bits)
        return packed
    stream = np.unpackbits(flat[:, None], axis=1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(-1), bitorder="little")


def unpack_codes(packed: Bytes, bits: int, shape: tuple[int, ...]) -> Bytes:
    """Undo :func:`pack_codes`: ``uint8`` codes of the given shape.

    Raises:
        InputError: a width outside 1 to 8, or another number of bytes than the shape needs.
    """
    _check_bits(bits)
    count = int(np.prod(shape, dtype=np.int64))
    if packed.dtype != np.uint8 or packed.size != packed_size(count, bits):
        raise InputError(
            f"packed: expected {packed_size(count, bits)} bytes for {count} codes of {bits} bits,"
            f" got {packed.size} of {packed.dtype}"
        )
    flat = np.ascontiguousarray(packed).reshape(-1)
    if _host is not None:
        codes: Bytes = _host.unpack(flat, bits, count)
        return codes.reshape(shape)
    stream = np.unpackbits(flat, count=count * bits, bitorder="little").reshape(count, bits)
    return np.packbits(stream, axis=1, bitorder="little").reshape(shape)


def build_facts() -> dict[str, Any]:
    """Return what the build says about itself, with a row per CUDA kernel; empty without it."""
    if _host is None:
        return {}
    return {**_host.build_facts(), "kernels": _host.kernel_facts()}
