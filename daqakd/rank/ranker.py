"""``rank``: one teacher pass per strategy over the augmented training images."""

import copy
import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .. import _console
from .._errors import InputError
from .._files import write_json
from ..augment import PAPER, Stream, get_strategy
from ..augment.draws import permutation
from ..data import Dataset, class_ranks
from .confidence import FOLDS
from .ranking import Criterion, Ranking, StrategyResult
from .state import CMIState

BATCH = 500
STD_GROUP = 1000
CLEAN_IMAGES = 2000
SMALL_SET = 5000


@dataclass(frozen=True)
class Job:
    """Everything the passes of a ranking share."""

    teacher: nn.Module
    dataset: Dataset
    chunks: list[Tensor]  # image indices, in the order of the first pass
    folds: Tensor  # int64 [N], fold of every training image
    passes: int
    seed: int
    workers: int
    device: torch.device
    std_group: int

    @property
    def images(self) -> int:
        """Images per pass."""
        return sum(len(c) for c in self.chunks)


def _stratified(labels: Tensor, order: Tensor, images: int) -> Tensor:
    """Return the first ``images`` of ``order`` with every class at its share."""
    ranks = class_ranks(labels, order)
    counts = torch.bincount(labels)
    position = (ranks + 0.5) / counts[labels]
    keep = torch.zeros(len(labels), dtype=torch.bool)
    keep[torch.argsort(position[order], stable=True)[:images]] = True
    return order[keep]


def _check_counts(dataset: Dataset, images: int | None) -> int:
    counts = torch.bincount(dataset.train.labels, minlength=dataset.num_classes)
    empty = [dataset.classes[y] for y in (counts == 0).nonzero()[:, 0].tolist()]
    if empty:
        raise InputError(
            f"classes without training images: {', '.join(empty)}; remove or fill them"
        )
    total = len(dataset.train)
    least = 2 * FOLDS * dataset.num_classes
    wanted = total if images is None else images
    if wanted < least or wanted > total:
        raise InputError(
            f"images: {wanted} asked for; {FOLDS} folds of {dataset.num_classes} classes need at"
            f" least {least}, and the data set has {total}"
        )
    return wanted


def _check_teacher(job: Job) -> float:
    """Return the teacher's accuracy on clean training images; near chance is an error."""
    dataset = job.dataset
    order = permutation(job.seed, 0, torch.arange(len(dataset.train)))
    index = order[:CLEAN_IMAGES]
    mean = torch.tensor(dataset.mean, device=job.device).view(-1, 1, 1)
    std = torch.tensor(dataset.std, device=job.device).view(-1, 1, 1)
    right = 0
    for part in index.split(BATCH):
        images = (dataset.train.pixels[part].to(job.device).float() / 255 - mean) / std
        logits = job.teacher(images)
        if logits.dim() != 2 or logits.shape[1] != dataset.num_classes:
            raise InputError(
                f"teacher: returns {tuple(logits.shape)}, but {dataset.name} has"
                f" {dataset.num_classes} classes; use a teacher trained on them"
            )
        right += int((logits.argmax(1).cpu() == dataset.train.labels[part]).sum())
    accuracy, chance = right / len(index), 1 / dataset.num_classes
    if accuracy < chance + 4 * math.sqrt(chance * (1 - chance) / len(index)):
        raise InputError(
            f"teacher: {accuracy:.1%} right on {len(index)} clean training images of"
            f" {dataset.name}, where chance is {chance:.1%}; its ranking would be noise. Wrong"
            " weights, class order, or normalisation (--mean, --std)?"
        )
    return accuracy


def _stream(job: Job, name: str) -> Stream:
    images = job.dataset.train
    return Stream(
        images.pixels,
        images.labels,
        get_strategy(name),
        mean=job.dataset.mean,
        std=job.dataset.std,
        seed=job.seed,
        flip=job.dataset.flip,
        workers=job.workers,
        device=job.device,
    )


def _measure(job: Job, name: str, watch: Callable[..., Any]) -> StrategyResult:
    """Run the teacher over one strategy's images."""
    begin = time.monotonic()
    stream, classes = _stream(job, name), job.dataset.num_classes
    state = CMIState(classes, folds=FOLDS, device=job.device)
    groups = job.passes * job.images // job.std_group
    means = torch.zeros(groups + 1, classes, dtype=torch.float64, device=job.device)
    seen = 0
    batches = (b for p in range(job.passes) for b in stream.batches(p, job.chunks))
    for batch in watch(batches, f"rank {name}", job.passes * len(job.chunks)):
        logits = job.teacher(batch.images.contiguous(memory_format=torch.channels_last))
        labels: Any = batch.labels
        if batch.weight is not None:
            labels = (batch.labels, batch.partner_labels, batch.weight)
        state.update(logits, labels, job.folds[batch.index])
        group = torch.arange(seen, seen + len(logits), device=job.device) // job.std_group
        means.index_add_(0, group.clamp(max=groups), logits.double().softmax(1))
        seen += len(logits)
    return StrategyResult(
        name=name,
        measures=state.measures(),
        left_out=state.leave_one_out(),
        mixed=stream.strategy.mixing is not None,
        teacher_std=(means[:groups] / job.std_group).std(0).mean().item(),
        images=job.images,
        seconds=time.monotonic() - begin,
    )


def fingerprint(job: Job) -> str:
    """Return a hash of all that a strategy's numbers depend on, its name apart."""
    digest = hashlib.sha256()
    train = job.dataset.train
    named = job.teacher.state_dict() | {"labels": train.labels}
    for key, value in (named | {"chosen": torch.cat(job.chunks)}).items():
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(key.encode())
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    digest.update(train.digest().encode())
    settings = (job.dataset.mean, job.dataset.std, job.dataset.flip, job.passes, job.seed)
    digest.update(repr((settings, job.std_group, FOLDS)).encode())
    return digest.hexdigest()


def _resumable(
    job: Job, names: Sequence[str], run_dir: Path | None, watch: Callable[..., Any]
) -> list[StrategyResult]:
    """Measure every strategy, keeping each finished one in ``run_dir`` as it comes."""
    key = None if run_dir is None else fingerprint(job)
    results = []
    for name in names:
        part = None if run_dir is None else run_dir / "ranking.parts" / f"{name}.json"
        known = json.loads(part.read_text()) if part is not None and part.exists() else {}
        if known.get("fingerprint") == key and key is not None:
            results.append(StrategyResult.from_json(known["result"]))
            continue
        results.append(_measure(job, name, watch))
        if part is not None:
            write_json(part, {"fingerprint": key, "result": results[-1].to_json()})
    return results


def automatic_workers(images: int) -> int:
    """Return how many processes should augment a set of this size."""
    return (os.cpu_count() or 1) if images >= SMALL_SET else 0


def _job(
    teacher: nn.Module,
    dataset: Dataset,
    images: int | None,
    passes: int,
    seed: int,
    workers: int | None,
) -> Job:
    count = _check_counts(dataset, images)
    labels = dataset.train.labels
    order = permutation(seed, 0, torch.arange(len(labels)))
    first = next(iter(teacher.parameters()), None)
    return Job(
        teacher=copy.deepcopy(teacher).eval().to(memory_format=torch.channels_last),
        dataset=dataset,
        chunks=list(_stratified(labels, order, count).split(BATCH)),
        folds=class_ranks(labels, order) % FOLDS,
        passes=passes,
        seed=seed,
        workers=automatic_workers(count) if workers is None else workers,
        device=torch.device("cpu") if first is None else first.device,
        std_group=min(STD_GROUP, max(count // 10, 1)),
    )


@torch.no_grad()
def rank(
    teacher: nn.Module,
    dataset: Dataset,
    *,
    strategies: Sequence[str] | None = None,
    images: int | None = None,
    passes: int = 1,
    seed: int = 0,
    cmi_weight: float = 1.0,
    pac_weight: float = 1.0,
    pac_limit: float | None = None,
    workers: int | None = None,
    run_dir: str | Path | None = None,
    quiet: bool = True,
) -> Ranking:
    """Rank augmentation strategies from the teacher alone: ``score = PAC - CMI``, lower is better.

    Args:
        teacher: trained classifier ``[B, 3, H, W] -> [B, C]``; used in eval mode on its own
            device, and not changed.
        dataset: from :func:`daqakd.data.load` or ``wrap``; all its training images are used.
        strategies: names; None for the paper's seven.
        images: size of a stratified subset; None for all.
        passes: augmented passes per strategy, pooled.
        seed: of draws, subset and folds.
        cmi_weight: weight of CMI in the score.
        pac_weight: weight of PAC in the score.
        pac_limit: constrained form: highest CMI among the strategies with PAC up to the limit.
        workers: processes that augment; None to choose.
        run_dir: keep every finished strategy there, and do not repeat it.
        quiet: show no progress.

    Returns:
        The ranking, with 95 % jackknife intervals over 10 stratified folds.

    Raises:
        InputError: unknown strategy, empty class, too few images for the folds, a teacher of other
            classes or at chance level, or no strategy within ``pac_limit``.
    """
    names = list(PAPER if strategies is None else dict.fromkeys(strategies))
    for name in names:
        get_strategy(name)
    if not names or passes < 1:
        raise InputError("strategies and passes: need at least one of each")
    begin = time.monotonic()
    job = _job(teacher, dataset, images, passes, seed, workers)
    accuracy = _check_teacher(job)
    watch = _console.quiet if quiet else _console.track
    results = _resumable(job, names, None if run_dir is None else Path(run_dir), watch)
    criterion = Criterion(cmi_weight, pac_weight, pac_limit)
    allowed = [r for r in results if criterion.allows(r.measures)]
    if not allowed:
        least = min(r.measures.pac for r in results)
        raise InputError(f"pac_limit: no strategy is within {pac_limit}; the least PAC is {least}")
    order = sorted(
        results, key=lambda r: (not criterion.allows(r.measures), criterion.value(r.measures))
    )
    facts = {"class": type(teacher).__name__, "clean_accuracy": accuracy}
    seconds = time.monotonic() - begin
    return Ranking(order, criterion, dataset.num_classes, job.images, facts, seconds, job.std_group)
