"""What Python branches on is kept in buffers: Python's copies are read again when those changed.

So an average of models, ``functional_call``, or a value written by hand act as the ``state_dict``
says. Reading waits for the device, so there an unchanged buffer (same tensor, same version) is not
read, and a change through ``.data``, which torch does not count, is not seen before ``.to`` or a
load. On the CPU the values themselves are compared.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.compiler import is_compiling


def version_of(x: Tensor) -> int | None:
    """Return the counter of changes in place; inference tensors have none."""
    return None if x.is_inference() else x._version


def same_state(now: Tensor, before: Tensor | None, version: int | None) -> bool:
    """Return whether it is the tensor of before, unchanged as far as can be told."""
    return now is before and version is not None and version_of(now) == version


class _Read:
    """A buffer as it was when Python's copy was made. Not copied with a module: versions differ."""

    __slots__ = ("address", "buffer", "read", "value", "version")

    def __init__(self, buffer: Tensor) -> None:
        self.buffer, self.version, self.address = buffer, version_of(buffer), buffer.data_ptr()
        on_cpu = buffer.device.type == "cpu" and buffer.dtype != torch.bfloat16
        self.read: Any = np.asarray(buffer.detach()).item if on_cpu else None
        self.value = None if self.read is None else self.read()

    def is_current(self, buffer: Tensor) -> bool:
        """Return whether it holds the same value still, as far as can be told without waiting."""
        if buffer is not self.buffer or buffer.data_ptr() != self.address:
            return False
        if self.read is None:
            return same_state(buffer, self.buffer, self.version)
        return bool(self.read() == self.value)

    def __reduce__(self) -> tuple[Any, ...]:
        """Be None in copies and pickles."""
        return type(None), ()


class Flagged(nn.Module):
    """A module with the flags ``calibrated`` and ``signed``: buffers, 0-dim, set where not 0.

    They are float32, since averages of models subtract and scale buffers: torch refuses that for
    bool, and an integer 1 may become 0.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.register_buffer("calibrated", torch.zeros(()))
        self.register_buffer("signed", torch.zeros(()))
        self.calibrated: Tensor
        self.signed: Tensor
        self.known_calibrated, self.known_signed = False, False
        self.last_read: list[Any] = [None, None]  # of _Read

    @property
    def is_calibrated(self) -> bool:
        """Whether ``calibrate`` or a ``state_dict`` has set the parameters."""
        read_flags([self])
        return self.known_calibrated

    @property
    def is_signed(self) -> bool:
        """Whether negative values have codes."""
        read_flags([self])
        return self.known_signed

    def flag_buffers(self) -> tuple[Tensor, ...]:
        """Return calibrated and signed."""
        buffers: Any = self._buffers
        return buffers["calibrated"], buffers["signed"]

    def flags_changed(self) -> bool:
        """Return whether the buffers may hold other values than Python's copies."""
        if is_compiling() or "_is_replica" in self.__dict__:
            return False  # a graph has no values; replicas are made of what was just read
        (a, b), buffers = self.last_read, self.flag_buffers()
        read = a is not None and b is not None
        if read and a.is_current(buffers[0]) and b.is_current(buffers[1]):
            return False
        return all(type(flag) is Tensor and not flag.is_meta for flag in buffers)

    def note_flags(self, calibrated: bool, signed: bool) -> None:
        """Keep what the buffers hold now."""
        self.known_calibrated, self.known_signed = calibrated, signed
        self.last_read = [_Read(buffer) for buffer in self.flag_buffers()]

    def set_flags(self, calibrated: bool, signed: bool) -> None:
        """Write both flags."""
        self.calibrated.fill_(calibrated)
        self.signed.fill_(signed)
        self.note_flags(calibrated, signed)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        read_flags([self])

    def _replicate_for_data_parallel(self) -> Any:
        read_flags([self])
        return super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]


def read_flags(modules: Iterable[Flagged]) -> None:
    """Renew Python's copies where the buffers changed, reading each device once."""
    changed: dict[Any, list[Flagged]] = defaultdict(list)
    for module in modules:
        if module.flags_changed():
            changed[module.calibrated.device].append(module)
    for group in changed.values():
        flags = torch.stack([f.detach().float() for m in group for f in m.flag_buffers()])
        for module, row in zip(group, (flags.view(-1, 2) != 0).tolist(), strict=True):
            module.note_flags(*row)
