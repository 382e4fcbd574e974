"""The floor of an op: the bytes it has to move, at the speed this device copies memory."""

import time
from functools import cache

import torch

# Tensors of the input's dtype read and written once; parameters and partial sums are not counted.
PASSES = {"lsq-forward": 2, "lsq-backward": 3, "lsq": 5}


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device == "cuda":
        torch.cuda.synchronize()


def timer() -> float:
    """Tell the time once a GPU, if any, has finished: pytest-benchmark's clock."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def bytes_moved(op: str, numel: int, dtype: torch.dtype) -> int:
    """Return the bytes that ``op`` has to read and write."""
    return PASSES[op] * numel * dtype.itemsize


@cache
def copy_speed(device: str) -> float:
    """Return bytes per second, read and written, of copying a large buffer on ``device``."""
    size = 2**28 if device == "cuda" else 2**26
    source, target = (torch.zeros(size, dtype=torch.uint8, device=device) for _ in range(2))
    times = []
    for _ in range(10):
        synchronize(device)
        start = time.perf_counter()
        target.copy_(source)
        synchronize(device)
        times.append(time.perf_counter() - start)
    return 2 * size / min(times)


def floor_seconds(op: str, numel: int, dtype: torch.dtype, device: str) -> float:
    """Return the time in which ``device`` would copy as many bytes as ``op`` has to move."""
    return bytes_moved(op, numel, dtype) / copy_speed(device)
