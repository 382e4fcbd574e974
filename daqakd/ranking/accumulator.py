"""``Accumulator``: the sums of one strategy over the batches it has seen."""

from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from .. import _ranks
from ..augment import Batch
from .confidence import FOLDS
from .job import Job
from .result import StrategyResult
from .state import CMIState


class Accumulator:
    """The sums of one strategy over the first ``done`` steps of a job."""

    def __init__(self, job: Job, name: str) -> None:
        classes, groups = job.dataset.num_classes, job.passes * job.num_images // job.std_group
        self.job, self.name = job, name
        self.stream = job.stream(name)
        self.state = CMIState(classes, folds=FOLDS, device=job.device)
        self.means = torch.zeros(groups + 1, classes, dtype=torch.float64, device=job.device)
        self.counts = torch.zeros(groups + 1, dtype=torch.int64)
        self.done, self.seconds = 0, 0.0

    def batches(self, stop: int) -> Iterator[Batch]:
        """Yield this rank's shares of the batches from step ``done`` up to ``stop``."""
        for number, steps in groupby(self.job.steps[self.done : stop], key=lambda s: s[0]):
            yield from self.stream.batches(number, [_ranks.share(index) for _, index in steps])

    def add(self, batch: Batch) -> None:
        """Count the teacher's predictions for the next step's batch, of which this is the share.

        Every rank counts all of them, so what it has and saves does not depend on their number.
        """
        job = self.job
        number, index = job.steps[self.done]
        logits, labels = self._whole(job.logits(batch.images), batch, len(index))
        self.state.update(logits, labels, job.folds[index])
        position = job.positions[index] + number * job.num_images
        group = (position // job.std_group).clamp(max=len(self.counts) - 1)
        self.means.index_add_(0, group.to(job.device), logits.double().softmax(1))
        self.counts.index_add_(0, group, torch.ones_like(group))
        self.done += 1

    def _whole(self, logits: Tensor, batch: Batch, total: int) -> tuple[Tensor, Any]:
        """Return the logits and labels of a batch of which the ranks have shares."""
        mixed = batch.partner_labels is not None and batch.weight is not None
        labels = [batch.labels, batch.partner_labels, batch.weight] if mixed else [batch.labels]
        logits, *labels = (_ranks.gathered(part, total) for part in (logits, *labels))
        return logits, tuple(labels) if mixed else labels[0]

    def _teacher_std(self) -> tuple[float | None, list[float]]:
        """Return T. stddev over the complete groups, and without each fold of them.

        A fold has the same images in every pass. None and nothing where there are fewer than two
        groups, nothing where a fold has none.
        """
        complete = (self.counts[:-1] == self.job.std_group).nonzero()[:, 0]
        if len(complete) < 2:
            return None, []
        means = self.means[complete.to(self.means.device)].cpu() / self.job.std_group
        each = max(self.job.num_images // self.job.std_group, 1)  # groups of a pass
        folds = complete % each * FOLDS // each
        kept = [means[folds != fold] for fold in range(FOLDS)]
        usable = all(2 <= len(part) < len(means) for part in kept)
        parts = [part.std(0).mean().item() for part in kept] if usable else []
        return means.std(0).mean().item(), parts

    def result(self) -> StrategyResult:
        """Return the measures of what was counted."""
        teacher_std, std_left_out = self._teacher_std()
        return StrategyResult(
            name=self.name,
            measures=self.state.measures(),
            left_out=self.state.leave_one_out(),
            mixed=self.stream.strategy.mixing is not None,
            teacher_std=teacher_std,
            num_images=min(self.job.images_in(self.done), self.job.num_images),
            seconds=self.seconds,
            std_left_out=std_left_out,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums."""
        return {**self.state.state_dict(), "means": self.means, "counts": self.counts}

    def restore(self, tensors: Mapping[str, Tensor], done: int, seconds: float) -> None:
        """Undo :meth:`tensors`."""
        moved = {k: v if k == "counts" else v.to(self.job.device) for k, v in tensors.items()}
        self.means, self.counts = moved.pop("means"), moved.pop("counts")
        self.state.load_state_dict(moved)
        self.done, self.seconds = done, seconds
