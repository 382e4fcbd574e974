"""``Tally``: what one strategy has gathered so far, and its files."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from .._files import write_json, write_tensors
from ..augment import Batch
from .confidence import FOLDS
from .job import Job
from .result import StrategyResult
from .state import CMIState


class Tally:
    """The sums of one strategy over the first ``done`` steps of a job."""

    def __init__(self, job: Job, name: str) -> None:
        classes, groups = job.dataset.num_classes, job.asked.passes * job.images // job.std_group
        self.job, self.name = job, name
        self.stream = job.stream(name)
        self.state = CMIState(classes, folds=FOLDS, device=job.device)
        self.means = torch.zeros(groups + 1, classes, dtype=torch.float64, device=job.device)
        self.counts = torch.zeros(groups + 1, dtype=torch.int64)
        self.done, self.seconds = 0, 0.0

    def batches(self, stop: int) -> Iterator[Batch]:
        """Yield the batches from step ``done`` up to ``stop``."""
        for number, steps in groupby(self.job.steps[self.done : stop], key=lambda s: s[0]):
            yield from self.stream.batches(number, [index for _, index in steps])

    def add(self, batch: Batch) -> None:
        """Count the teacher's predictions for the next step's batch."""
        job = self.job
        logits = job.logits(batch.images)
        labels: Any = batch.labels
        if batch.partner_labels is not None and batch.weight is not None:
            labels = (batch.labels, batch.partner_labels, batch.weight)
        self.state.update(logits, labels, job.folds[batch.index])
        place = job.places[batch.index] + job.steps[self.done][0] * job.images
        group = (place // job.std_group).clamp(max=len(self.counts) - 1)
        self.means.index_add_(0, group.to(job.device), logits.double().softmax(1))
        self.counts.index_add_(0, group, torch.ones_like(group))
        self.done += 1

    def _teacher_std(self) -> float | None:
        """Return T. stddev over the complete groups, None where there are fewer than two."""
        complete = (self.counts[:-1] == self.job.std_group).nonzero()[:, 0]
        if len(complete) < 2:
            return None
        means = self.means[complete.to(self.means.device)]
        return (means / self.job.std_group).std(0).mean().item()

    def result(self) -> StrategyResult:
        """Return the measures of what was counted."""
        return StrategyResult(
            name=self.name,
            measures=self.state.measures(),
            left_out=self.state.leave_one_out(),
            mixed=self.stream.strategy.mixing is not None,
            teacher_std=self._teacher_std(),
            images=min(self.job.rows(self.done), self.job.images),
            seconds=self.seconds,
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


class Parts:
    """The folder of half-finished work: tallies and what rounds decided, of one fingerprint."""

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self.folder, self.fingerprint = folder, fingerprint

    def load(self, tally: Tally) -> None:
        """Continue a tally where it was saved last."""
        path = self._path(f"{tally.name}.safetensors")
        if path is None or not path.exists():
            return
        with safe_open(path, "pt") as file:
            facts = file.metadata()
            if facts.get("fingerprint") == self.fingerprint:
                tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
                tally.restore(tensors, int(facts["done"]), float(facts["seconds"]))

    def save(self, tally: Tally) -> None:
        """Keep a tally."""
        path = self._path(f"{tally.name}.safetensors")
        facts = {"done": str(tally.done), "seconds": repr(tally.seconds)}
        if path is not None:
            write_tensors(path, tally.tensors(), {"fingerprint": self.fingerprint, **facts})

    def rounds(self) -> tuple[list[list[str]], float]:
        """Return the names that each finished round dropped, and the seconds spent by then."""
        path = self._path("rounds.json")
        record = json.loads(path.read_text()) if path is not None and path.exists() else {}
        if record.get("fingerprint") != self.fingerprint:
            return [], 0.0
        return record["dropped"], record["seconds"]

    def note(self, dropped: Sequence[Sequence[str]], seconds: float) -> None:
        """Keep what the finished rounds dropped, and the seconds spent."""
        path = self._path("rounds.json")
        record = {"fingerprint": self.fingerprint, "dropped": dropped, "seconds": seconds}
        if path is not None:
            write_json(path, record)

    def _path(self, name: str) -> Path | None:
        return None if self.folder is None else self.folder / "ranking.parts" / name
