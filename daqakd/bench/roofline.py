"""The floor of an op: the bytes it has to move, at the speed this device copies memory."""

import math
import time
from functools import cache

import torch

# Tensors of the dtype read or written, and bytes per element besides: of a mask written and read
# again, of pixels. Parameters and partial sums are not counted. DoReFa's maximum needs a read of
# its own.
BYTES = {
    "lsq": (5, 0.0),
    "pact": (4, 0.5),
    "dorefa_activation": (4, 0.25),
    "dorefa_weight": (6, 0.0),
    "ewgs": (5, 0.0),
    "kd_loss": (3, 0.0),
    "augment": (1, 1.0),
}


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
    """Return the bytes that ``op``, backward included, has to read and write."""
    passes, mask = BYTES[op]
    return math.ceil((passes * dtype.itemsize + mask) * numel)


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


def floor_seconds(op: str, numel: int, dtype: torch.dtype, device: str) -> float:
    """Return the time in which ``device`` would copy as many bytes as ``op`` has to move."""
    return bytes_moved(op, numel, dtype) / copy_speed(device)
