"""The roofline of a memory-bound op: its bytes at the speed this device copies memory."""

import math
import time
from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class Traffic:
    """What an op has to read and write per element, backward included.

    Parameters and partial sums are not counted.

    Args:
        tensors: tensors of the op's dtype, counted once per read and once per write.
        extra_bytes: bytes per element besides: of a mask written and read again, of pixels.
    """

    tensors: int
    extra_bytes: float = 0.0

    def bytes(self, numel: int, dtype: torch.dtype) -> int:
        """Return the bytes for ``numel`` elements."""
        return math.ceil((self.tensors * dtype.itemsize + self.extra_bytes) * numel)

    def seconds(self, numel: int, dtype: torch.dtype, device: str) -> float:
        """Return the time in which ``device`` copies as many bytes."""
        return self.bytes(numel, dtype) / copy_speed(device)


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def timer() -> float:
    """Tell the time once a GPU, if any, has finished: pytest-benchmark's clock."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


@cache
def copy_speed(device: str) -> float:
    """Return bytes per second, read and written, of copying a large buffer on ``device``."""
    size = 2**30 if device == "cuda" else 2**26
    # random, for zeros can move faster than data does; both written, so that no page is new
    source, target = (
        torch.randint(256, (size,), dtype=torch.uint8, device=device) for _ in range(2)
    )
    times = []
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size / min(times)
