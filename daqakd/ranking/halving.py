"""``search``: random compositions of two operations, ranked by successive halving.

Karnin, Koren and Somekh (ICML 2013): all on few images, the better half on twice as many, and so
on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._errors import InputError
from .._files import write_json
from ..augment import ResizedCrop
from ..augment.compositions import describe, random_compositions
from ..data import Dataset
from .accumulator import Parts
from .job import Job, Request, check_counts, fingerprint, least_images, make_job, teacher_accuracy
from .ranker import make_ranking
from .result import Criterion, Ranking, Stop, StrategyResult
from .rounds import Clock, Outcome, Rounds

FINALISTS = 4
MOST = 10000


def rungs(compositions: int, least: int, images: int) -> list[int]:
    """Return the images of each rung: doubling, or slower where the images do not allow that."""
    halvings, left = 0, compositions
    while left > FINALISTS:
        halvings, left = halvings + 1, (left + 1) // 2
    start = max(least, images >> halvings)
    growth = (images / start) ** (1 / max(halvings, 1))
    return sorted({*(int(start * growth**r) for r in range(halvings)), images})


@dataclass(frozen=True)
class KeepHalf:
    """Drops the worse half after every rung but the last."""

    criterion: Criterion
    rungs: int

    def __call__(self, number: int, results: Sequence[StrategyResult]) -> list[str]:
        """Return the names of the worse half."""
        if number == self.rungs - 1:
            return []
        by_score = sorted(results, key=lambda r: self.criterion.score(r.measures))
        return [r.name for r in by_score[(len(results) + 1) // 2 :]]


@dataclass(frozen=True)
class Search:
    """The finalists' ranking, and how far every composition came.

    Attributes:
        ranking: of the compositions that reached the last rung, all on the same images. They were
            chosen on these images too: the winner's score is a little too good.
        trials: one row per composition, by rung and score: name, operations, rung (from 1), images,
            score.
        rungs: images and number of compositions of each rung.
    """

    ranking: Ranking
    trials: list[dict[str, Any]]
    rungs: list[dict[str, int]]

    @property
    def best(self) -> str:
        """The winner's name, a strategy to train with."""
        return self.ranking.best

    def save(self, directory: str | Path) -> None:
        """Write ``search.json``, and the finalists as ``ranking.json``, ``.csv`` and ``.png``."""
        record = {"best": self.best, "rungs": self.rungs, "compositions": self.trials}
        write_json(Path(directory) / "search.json", record)
        self.ranking.save(directory)


def _search(outcome: Outcome, ranking: Ranking, job: Job) -> Search:
    reached = {n: r for r, names in enumerate(outcome.dropped, 1) for n in names}
    height, width = job.sides
    ends = [job.rows(end) for end in job.ends]
    trials: list[dict[str, Any]] = [
        {
            "name": name,
            "operations": describe(name, height, width),
            "rung": reached.get(name, len(ends)),
            "images": result.images,
            "score": ranking.criterion.score(result.measures),
        }
        for name, result in outcome.results.items()
    ]
    trials.sort(key=lambda t: (-t["rung"], t["score"]))
    counts = [sum(t["rung"] >= r for t in trials) for r in range(1, len(ends) + 1)]
    steps = [{"images": e, "compositions": c} for e, c in zip(ends, counts, strict=True)]
    return Search(ranking, trials, steps)


def check_compositions(count: int) -> None:
    """Raise InputError for a number that cannot be searched."""
    if not 2 <= count <= MOST:
        raise InputError(f"compositions: expected 2 to {MOST}, got {count}")


@torch.no_grad()
def search(
    teacher: nn.Module,
    dataset: Dataset,
    *,
    compositions: int = 100,
    images: int | None = None,
    seed: int = 0,
    cmi_weight: float = 1.0,
    pac_weight: float = 1.0,
    teacher_dtype: torch.dtype = torch.float32,
    pipeline: ResizedCrop | None = None,
    semantics: str = "pil",
    run_dir: str | Path | None = None,
    quiet: bool = True,
) -> Search:
    """Rank random compositions of two operations, most of them on few images only.

    Args:
        teacher: as for :func:`daqakd.rank`.
        dataset: as for :func:`daqakd.rank`.
        compositions: how many to draw, from TrivialAugment's operations and magnitudes.
        images: of the last rung, where up to four compositions are left; None for all.
        seed: of compositions, draws, subset and folds.
        cmi_weight: weight of CMI in the score.
        pac_weight: weight of PAC in the score.
        teacher_dtype: as for :func:`daqakd.rank`.
        pipeline: as for :func:`daqakd.rank`.
        semantics: as for :func:`daqakd.rank`.
        run_dir: keep the work there; the same call continues it.
        quiet: show no progress.

    Returns:
        The finalists' ranking and every composition's way; names are strategies to train with.

    Raises:
        InputError: fewer than 2 or more than 10000 compositions, or as :func:`daqakd.rank`.
    """
    check_compositions(compositions)
    clock, criterion = Clock(), Criterion(cmi_weight, pac_weight)
    count, names = check_counts(dataset, images), random_compositions(compositions, seed)
    ends = rungs(compositions, least_images(dataset), count)
    asked = Request(
        images, seed=seed, teacher_dtype=teacher_dtype, pipeline=pipeline, semantics=semantics
    )
    job = make_job(teacher, dataset, asked, ends)
    accuracy = teacher_accuracy(job)
    folder = None if run_dir is None else Path(run_dir)
    parts = Parts(folder, fingerprint(job, names, criterion))
    outcome = Rounds(job, parts, clock, KeepHalf(criterion, len(ends)), quiet).run(names)
    finalists = [outcome.results[name] for name in outcome.live]
    finalists.sort(key=lambda r: criterion.score(r.measures))
    stop = Stop(f"{compositions} compositions over {len(ends)} rungs of halving")
    ranking = make_ranking(job, finalists, criterion, accuracy, clock, stop)
    return _search(outcome, ranking, job)
