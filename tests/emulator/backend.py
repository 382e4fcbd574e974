"""The CUDA kernels, run on the CPU, as one more backend of every op: ``emulated``.

Importing this adds it to the package; nothing is built before it is asked for.
"""

import ctypes
import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from daqakd import _ops

NAME = "emulated"
if NAME not in _ops.BACKENDS:
    _ops.add_backend(NAME)

# these read DAQAKD_BACKEND, which may have the new name
from daqakd.backends import native, select  # noqa: E402

from . import build  # noqa: E402

LIBRARY = "DAQAKD_EMULATOR"  # names a built library to take instead of building one
MOST_PAGES = 8000  # 400 MB of notes
FIELDS = ("launches", "blocks", "threads", "accesses", "switches", "reports")


class Counts(ctypes.Structure):
    _fields_ = [(name, ctypes.c_int64) for name in FIELDS]


class Emulator:
    """The controls of a loaded library."""

    def __init__(self, path: Path) -> None:
        torch.ops.load_library(str(path))
        self.library = ctypes.CDLL(str(path))
        self.library.emulator_counts.restype = ctypes.POINTER(Counts)
        self.library.emulator_living_tensors.restype = ctypes.c_int64
        for name in ("order", "sample", "remember", "capture"):
            control = getattr(self.library, f"emulator_{name}")
            control.argtypes, control.restype = [ctypes.c_int64], None
        self.seed = 2
        self.order(self.seed)
        self.remember()

    def order(self, seed: int) -> None:
        """Run threads and blocks in order (0), from the last to the first (1), or at random."""
        self.seed = seed
        self.library.emulator_order(seed)

    def remember(self, pages: int = MOST_PAGES) -> None:
        """Forget who touched what at the next launch after so many pages of memory."""
        self.library.emulator_remember(pages)

    def counts(self) -> dict[str, int]:
        """Return what has run so far."""
        found = self.library.emulator_counts().contents
        return {name: getattr(found, name) for name in FIELDS}

    def living_tensors(self) -> int:
        """Return how many tensors ops have made and neither freed nor returned."""
        return int(self.library.emulator_living_tensors())

    @contextmanager
    def ordered(self, seed: int) -> Iterator[None]:
        before = self.seed
        self.order(seed)
        try:
            yield
        finally:
            self.order(before)

    @contextmanager
    def capturing(self) -> Iterator[None]:
        """Tell ops that a graph records their launches, which run all the same."""
        self.library.emulator_capture(1)
        try:
            yield
        finally:
            self.library.emulator_capture(0)

    @contextmanager
    def sampled(self, blocks: int) -> Iterator[None]:
        """Run only the first and last ``blocks`` of a launch."""
        self.library.emulator_sample(blocks)
        try:
            yield
        finally:
            self.library.emulator_sample(0)


@functools.cache
def emulator() -> Emulator:
    """Return the emulator, built and loaded by the first call."""
    given = os.environ.get(LIBRARY)
    return Emulator(Path(given) if given else build.build())


def can_run(op: str, device: str, dtype: torch.dtype) -> str | None:
    """Return None when the emulator can run ``op``, else the reason in one sentence."""
    if device != "cpu":
        return f"the tensors are on {device}, the emulator's are on the cpu"
    reason = build.impossible()
    if reason is not None:
        return reason
    emulator()
    if op not in _ops.implemented(NAME, "cpu"):
        return f"the CUDA sources have no {op} op"
    if dtype not in _ops.INPUT_DTYPES.get(op, native.DTYPES["cuda"]):
        return f"the CUDA kernels do not take {dtype}"
    return None


select.RUNNERS[NAME] = can_run
