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

from .._files import write_json
from .._lock import working_in
from ..augment.compositions import describe, random_compositions
from ..data import Dataset
from .arguments import check_run
from .checkpoint import Checkpoint
from .config import SearchConfig, resolve
from .criterion import Criterion
from .job import Job, count_images, fingerprint, least_images, make_job, teacher_accuracy
from .ranker import make_ranking
from .result import Ranking, Stop, StrategyResult
from .rounds import Clock, Outcome, Rounds

FINALISTS = 4


def rungs(compositions: int, least: int, num_images: int) -> list[int]:
    """Return the images of each rung: doubling, or slower where the images do not allow that."""
    halvings, left = 0, compositions
    while left > FINALISTS:
        halvings, left = halvings + 1, (left + 1) // 2
    start = max(least, num_images >> halvings)
    growth = (num_images / start) ** (1 / max(halvings, 1))
    return sorted({*(int(start * growth**r) for r in range(halvings)), num_images})


@dataclass(frozen=True)
class KeepHalf:
    """Drops the worse half after every rung but the last."""

    criterion: Criterion
    rungs: int

    def __call__(self, number: int, results: Sequence[StrategyResult]) -> list[str]:
        """Return the names of the worse half."""
        if number == self.rungs - 1:
            return []
        by_score = sorted(results, key=lambda r: self.criterion.score(r.estimates))
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
        with working_in(directory, "directory"):
            write_json(Path(directory) / "search.json", record)
            self.ranking.save(directory)


def _search(outcome: Outcome, ranking: Ranking, job: Job) -> Search:
    reached = {n: r for r, names in enumerate(outcome.dropped, 1) for n in names}
    height, width = job.sides
    rung_images = [job.images_in(steps) for steps in job.round_steps]
    trials: list[dict[str, Any]] = [
        {
            "name": name,
            "operations": describe(name, height, width),
            "rung": reached.get(name, len(rung_images)),
            "images": result.num_images,
            "score": ranking.criterion.score(result.estimates),
        }
        for name, result in outcome.results.items()
    ]
    trials.sort(key=lambda t: (-t["rung"], t["score"]))
    counts = [sum(t["rung"] >= r for t in trials) for r in range(1, len(rung_images) + 1)]
    pairs = zip(rung_images, counts, strict=True)
    return Search(ranking, trials, [{"images": n, "compositions": c} for n, c in pairs])


@torch.no_grad()
def search(
    teacher: nn.Module,
    dataset: Dataset,
    config: SearchConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    quiet: bool = True,
    **options: Any,
) -> Search:
    """Rank random compositions of two operations, most of them on few images only.

    Compositions are drawn from TrivialAugment's operations and magnitudes; up to four reach the
    last rung.

    Args:
        teacher: as for :func:`daqakd.rank`.
        dataset: as for :func:`daqakd.rank`.
        config: options; None for the defaults.
        run_dir: keep the work there; the same call continues it.
        quiet: show no progress.
        options: fields of :class:`daqakd.SearchConfig` that replace the configuration's, and of
            :class:`daqakd.InputSpec` that replace the data set's.

    Returns:
        The finalists' ranking and every composition's way; names are strategies to train with.

    Raises:
        InputError: fewer than 2 or more than 10000 compositions, or as :func:`daqakd.rank`.
    """
    clock = Clock()
    folder = check_run(dataset, run_dir, quiet, teacher=teacher)
    config, dataset = resolve(SearchConfig, config, dataset, options)
    criterion, names = config.rule, random_compositions(config.compositions, config.seed)
    count = count_images(dataset, config.images)
    ends = rungs(config.compositions, least_images(dataset), count)
    job = make_job(teacher, dataset, config, round_images=ends)
    with working_in(folder):
        accuracy = teacher_accuracy(job)
        checkpoint = Checkpoint(folder, fingerprint(job, names, criterion))
        outcome = Rounds(job, checkpoint, clock, KeepHalf(criterion, len(ends)), quiet).run(names)
    finalists = [outcome.results[name] for name in outcome.live]
    finalists.sort(key=lambda r: criterion.score(r.estimates))
    stop = Stop(f"{config.compositions} compositions over {len(ends)} rungs of halving")
    ranking = make_ranking(job, finalists, criterion, accuracy, clock, stop)
    return _search(outcome, ranking, job)
