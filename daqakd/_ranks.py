"""Ranks: the processes of one job, as ``torchrun`` starts them; a process alone is rank 0 of 1.

All ranks run the same program. What is large is shared, what is left is the same on each: a rank
computes its share of a batch, and the first alone writes. What depends on a clock or a signal is
decided together.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from ._errors import InputError, first_line

if TYPE_CHECKING:  # the command line looks here before anything needs PyTorch
    from torch import Tensor

MEETING = timedelta(seconds=60)  # until all ranks are there
WAITING = timedelta(minutes=10)  # for one another
GOES_ON = "the same command continues from what was saved, with any number of ranks"


@dataclass(frozen=True)
class _Place:
    own: int = 0
    count: int = 1


_place = _Place()


def launched() -> tuple[int, int]:
    """Return this process's rank and their number, as its launcher says; without one, (0, 1)."""
    if not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} <= os.environ.keys():
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


@contextmanager
def joined() -> Iterator[None]:
    """Join the launcher's other ranks within the block, on gloo, and on NCCL for tensors of GPUs.

    Raises:
        InputError: they do not meet, or one of them is lost.
    """
    import torch.distributed as dist

    own, count = launched()
    if count == 1:
        yield
        return
    global _place
    _meet(own, count)
    _place = _Place(own, count)
    try:
        yield
        gc.collect()  # wrapped models hold the group's threads, in reference cycles
        wait()
        dist.destroy_process_group()
    except RuntimeError as error:
        if not _is_of_others(error):
            raise
        raise InputError(
            f"rank {own} of {count} lost another rank ({first_line(error)}); {GOES_ON}"
        ) from error
    finally:
        _place = _Place()


def leave(code: int) -> None:
    """End this process, where it is one of several that a launcher started.

    At the interpreter's own end, threads of torch's groups abort now and then what has finished.
    """
    if launched()[1] == 1:
        return
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            with suppress(OSError):
                stream.flush()
    os._exit(code)


def _meet(own: int, count: int) -> None:
    import torch
    import torch.distributed as dist

    gpus = torch.cuda.device_count()
    if gpus:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", own)) % gpus)
    try:
        store, *_ = next(dist.rendezvous("env://", timeout=MEETING))
        store.set_timeout(MEETING)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpus else "gloo",
            store=store,
            rank=own,
            world_size=count,
            timeout=WAITING,
        )
    except RuntimeError as error:
        seconds = int(MEETING.total_seconds())
        raise InputError(
            f"rank {own}: {count} ranks did not meet within {seconds} s ({first_line(error)});"
            " check that all were started, with the same --rdzv-endpoint"
        ) from error


def check_gpus() -> None:
    """Raise InputError where this machine has more ranks than GPUs: NCCL wants one for each."""
    import torch

    here, gpus = int(os.environ.get("LOCAL_WORLD_SIZE", _place.count)), torch.cuda.device_count()
    if _place.count > 1 and here > gpus:
        raise InputError(
            f"device: {here} ranks on a machine with {gpus} GPU(s); start as many with"
            " --nproc-per-node as there are, or pass --device cpu"
        )


def _is_of_others(error: RuntimeError) -> bool:
    import torch.distributed as dist

    return isinstance(error, dist.DistError) or "gloo" in str(error)


def count() -> int:
    """Return the number of ranks."""
    return _place.count


def own() -> int:
    """Return the number of this rank, from 0."""
    return _place.own


def is_writer() -> bool:
    """Return whether this rank writes files and says what it does: the first alone."""
    return _place.own == 0


def wait() -> None:
    """Wait until all ranks are here: files of the first can be read then."""
    if _place.count > 1:
        any_of(False)


def is_shared(rows: int) -> bool:
    """Return whether so many rows are shared; where a share would be empty, every rank has all."""
    return 1 < _place.count <= rows


def share(rows: Tensor) -> Tensor:
    """Return this rank's rows of a batch ``[B, ...]``: consecutive, nearly as many on each rank."""
    return rows.tensor_split(_place.count)[_place.own] if is_shared(len(rows)) else rows


def gathered(rows: Tensor, total: int) -> Tensor:
    """Undo :func:`share` of a batch of ``total`` rows, on every rank."""
    import torch
    import torch.distributed as dist

    if not is_shared(total):
        return rows
    sizes = [len(part) for part in torch.empty(total).tensor_split(_place.count)]
    padded = rows.new_zeros(sizes[0], *rows.shape[1:])
    padded[: len(rows)] = rows
    found = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(found, padded)
    return torch.cat([part[:size] for part, size in zip(found, sizes, strict=True)])


def total(value: Tensor, rows: int) -> Tensor:
    """Return the sum of what the ranks counted in their shares of so many rows."""
    import torch.distributed as dist

    if not is_shared(rows):
        return value
    found = value.clone()
    dist.all_reduce(found)
    return found


def average_(values: Sequence[Tensor]) -> None:
    """Set tensors of one dtype to the means of the ranks' values."""
    import torch
    import torch.distributed as dist

    if _place.count == 1 or not values:
        return
    flat = torch.cat([value.flatten() for value in values])
    dist.all_reduce(flat)
    flat /= _place.count
    for value, mean in zip(values, flat.split([v.numel() for v in values]), strict=True):
        value.copy_(mean.view_as(value))


def any_of(*flags: bool) -> list[bool]:
    """Return which flags are true on any rank; reads nothing back from a GPU."""
    import torch
    import torch.distributed as dist

    if _place.count == 1:
        return [*flags]
    found = torch.tensor(flags, dtype=torch.int32)
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return [bool(flag) for flag in found.tolist()]


def agree(number: int) -> bool:
    """Return whether a number is the same on all ranks."""
    import torch
    import torch.distributed as dist

    if _place.count == 1:
        return True
    found = torch.tensor([number, -number])
    dist.all_reduce(found, dist.ReduceOp.MAX)
    return bool(found.sum() == 0)


def stacked(value: Tensor) -> Tensor:
    """Return the ranks' values, one a row; of a process alone, its value."""
    import torch
    import torch.distributed as dist

    if _place.count == 1:
        return value
    found = [torch.empty_like(value) for _ in range(_place.count)]
    dist.all_gather(found, value)
    return torch.stack(found)


def unstacked(values: Tensor, dim: int) -> Tensor:
    """Return this rank's value of ``dim`` dimensions from what :func:`stacked` returned.

    From another number of ranks the first takes the sum, and the others zeros.
    """
    import torch

    if values.dim() > dim and len(values) == _place.count:
        return values[_place.own]
    whole = values.sum(0) if values.dim() > dim else values
    return whole if is_writer() else torch.zeros_like(whole)
