"""The next batch is made while the current one trains: a thread's work, or a stream's on a GPU."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from ..augment import Batch, Stream


def can_prefetch(stream: Stream) -> bool:
    """Return whether batches may be made beside the training.

    Their draws are counted, so their bits do not depend on it. A registered transform draws from
    the process's own generators and has workers; a CPU without a free core would only take turns.
    """
    if stream.strategy.transform is not None:
        return False
    free = (os.cpu_count() or 1) - torch.get_num_threads()
    return torch.device(stream.device).type == "cuda" or free > 0


def prefetched(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    """Yield the same batches, each made while the one before it is used."""
    return _on_a_stream(batches, device) if device.type == "cuda" else _in_a_thread(batches)


def _in_a_thread(batches: Iterator[Batch]) -> Iterator[Batch]:
    with ThreadPoolExecutor(1, "daqakd-augment") as pool:
        coming = pool.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = pool.submit(next, batches, None)
            yield batch


def _on_a_stream(batches: Iterator[Batch], device: torch.device) -> Iterator[Batch]:
    side = torch.cuda.Stream(device)

    def make() -> Batch | None:
        with torch.cuda.stream(side):
            return next(batches, None)

    coming = make()
    while (batch := coming) is not None:
        used_by = torch.cuda.current_stream(device)
        used_by.wait_stream(side)
        for tensor in (batch.images, batch.labels, batch.partner_labels, batch.weight):
            if tensor is not None:
                tensor.record_stream(used_by)
        coming = make()
        yield batch
