"""``--graph``: a step's passes, loss and gradients as one CUDA graph, replayed for every batch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _ranks
from ..augment import Batch
from .config import TrainConfig

WARM = 3  # batches before one is recorded: libraries choose algorithms, caches fill
Work = Callable[[Batch], None]
Kind = tuple[torch.Size | None, ...]


def can_record(config: TrainConfig, device: torch.device) -> bool:
    """Return whether a run's gradients may be recorded: compilers and DDP do as they see fit."""
    possible = device.type == "cuda" and _ranks.count() == 1 and not config.compile
    return config.graph == "auto" and possible


def record(work: Callable[[], None]) -> Callable[[], None]:
    """Return what launches again all that ``work`` launches, which does not run meanwhile."""
    graph = torch.cuda.CUDAGraph()
    # batches are made, and memory is asked for, beside it
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        work()
    replay: Callable[[], None] = graph.replay
    return replay


def _tensors(batch: Batch) -> list[Tensor | None]:
    return [batch.images, batch.labels, batch.index, batch.partner_labels, batch.weight]


def _kind(batch: Batch) -> Kind:
    return tuple(None if value is None else value.shape for value in _tensors(batch))


def _copy(batch: Batch) -> Batch:
    device = batch.images.device  # a recording cannot take the index there
    images, labels, index, partner_labels, weight = (
        None if value is None else value.to(device, copy=True) for value in _tensors(batch)
    )
    assert images is not None
    assert labels is not None
    assert index is not None
    return Batch(images, labels, index, partner_labels, weight)


@dataclass(frozen=True)
class _Recording:
    """What to replay, and the batch that it reads."""

    batch: Batch
    replay: Callable[[], None]

    def run(self, batch: Batch) -> None:
        """Compute with the values of another batch."""
        for own, given in zip(_tensors(self.batch), _tensors(batch), strict=True):
            if own is not None and given is not None:
                own.copy_(given)
        self.replay()


class Gradients:
    """Runs what adds a batch's gradients: as it is, or from the fourth batch on as a recording.

    A recording writes into the same gradients every time, so these are set to zero, not dropped.
    What cannot be recorded, as it reads a value back, runs as it is; that is said once.

    Args:
        work: adds a batch's gradients to those of ``parameters``.
        parameters: all that get gradients.
        recorded: whether to record.
        say: takes the sentence.
    """

    def __init__(
        self, work: Work, parameters: Sequence[Tensor], recorded: bool, say: Callable[[str], None]
    ) -> None:
        self.work, self.parameters, self.recorded, self.say = work, parameters, recorded, say
        self.forget()

    def forget(self) -> None:
        """Record anew: the model computes something else from now on."""
        self.seen = 0
        self.gradients: list[Tensor | None] = []
        self.recordings: dict[Kind, _Recording] = {}

    def zero(self) -> None:
        """Begin a new sum of gradients."""
        if not self.recorded or self.seen < WARM:
            self._set([None] * len(self.parameters))
            return
        if not self.gradients:
            self.gradients = [parameter.grad for parameter in self.parameters]
        self._set(self.gradients)
        torch._foreach_zero_([gradient for gradient in self.gradients if gradient is not None])

    def _set(self, gradients: Sequence[Tensor | None]) -> None:
        for parameter, gradient in zip(self.parameters, gradients, strict=True):
            parameter.grad = gradient

    def add(self, batch: Batch) -> None:
        """Add a batch's gradients."""
        self.seen += 1
        recording = self._recording(batch) if self.gradients else None
        if recording is None:
            self.work(batch)
        else:
            recording.run(batch)

    def _recording(self, batch: Batch) -> _Recording | None:
        """Return the recording for batches of this shape, None where there can be none."""
        kind = _kind(batch)
        if kind not in self.recordings:
            copied = _copy(batch)
            try:
                self.recordings[kind] = _Recording(copied, record(lambda: self.work(copied)))
                self._check()
            except RuntimeError as error:
                self._give_up(str(error).strip().partition("\n")[0])
        return self.recordings.get(kind)

    def _check(self) -> None:
        """Raise RuntimeError where a recording would not add to the gradients that there are."""
        if any(p.grad is not g for p, g in zip(self.parameters, self.gradients, strict=True)):
            raise RuntimeError("some parameters have a gradient in some steps only")

    def _give_up(self, why: str) -> None:
        """Run every batch as it is from now on, this one included."""
        self._set(self.gradients)
        self.recorded = False
        self.forget()
        self.say(f"graph: no step could be recorded ({why}); they run one by one")
