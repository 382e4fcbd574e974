"""``rank``: the teacher over every strategy's augmented training images, side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .._errors import InputError
from .._lock import working_in
from ..augment import get_strategy
from ..data import Dataset
from .anytime import DropSeparated, check_images, first_look, planned_stop, reason, round_images
from .arguments import check_run
from .checkpoint import Checkpoint
from .config import RankConfig, resolve
from .criterion import SCORE, Criterion
from .job import Job, count_images, fingerprint, least_images, make_job, teacher_accuracy
from .result import Ranking, Stop, StrategyResult
from .rounds import Clock, Outcome, Rounds

KEPT_VALUES = 2**28  # of the predictions that mixed images keep


def _groups(job: Job, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield strategies whose kept predictions fit into memory together."""
    group: list[str] = []
    kept, own = 0, 2 * job.images_in(len(job.steps)) * job.dataset.num_classes
    for name in names:
        mixed = get_strategy(name).mixing is not None
        if group and mixed and kept + own > KEPT_VALUES:
            yield group
            group, kept = [], 0
        group.append(name)
        kept += own * mixed
    yield group


def _rank_all(job: Job, config: RankConfig, folder: Path | None, quiet: bool) -> Outcome:
    """See all images with every strategy."""
    checkpoint = Checkpoint(folder, fingerprint(job))
    results: dict[str, StrategyResult] = {}
    for group in _groups(job, config.names):
        results |= Rounds(job, checkpoint, Clock(), quiet=quiet).run(group).results
    return Outcome(results, list(results), [], out_of_time=False)


def _rank_until(
    job: Job, config: RankConfig, folder: Path | None, clock: Clock, quiet: bool
) -> tuple[Outcome, Stop]:
    """See images until the best is separated or the time is over."""
    own = config.names, config.rule, *([] if config.criterion == SCORE else [config.criterion])
    key = fingerprint(job, own if config.until_sure else None)
    rounds = Rounds(job, Checkpoint(folder, key), clock, quiet=quiet)
    stop = planned_stop(config, len(job.round_steps))
    if config.until_sure:
        least = first_look(job.dataset.num_classes)
        rounds = replace(rounds, decide=DropSeparated(config.rule, stop, least))
    outcome = rounds.run(config.names)
    text = reason(config, outcome, stop, job.num_images, job.images_in(job.round_steps[0]))
    sure = len(outcome.live) == 1 if config.until_sure else None
    dropped = tuple(name for name in config.names if name not in outcome.live)
    return outcome, replace(stop, reason=text, sure=sure, dropped=dropped)


def ordered(outcome: Outcome, criterion: Criterion) -> list[StrategyResult]:
    """Return the results, best first: it is one that saw all the images, within ``pac_limit``."""

    def key(result: StrategyResult) -> tuple[bool, float]:
        return not criterion.allows(result.estimates), criterion.value(result)

    best = min((outcome.results[name] for name in outcome.live), key=key)
    if not criterion.allows(best.estimates):
        least = min(r.estimates.pac for r in outcome.results.values())
        raise InputError(
            f"pac_limit: no strategy is within {criterion.pac_limit}; the least PAC is {least}"
        )
    return [best, *sorted((r for r in outcome.results.values() if r is not best), key=key)]


@torch.no_grad()
def rank(
    teacher: nn.Module,
    dataset: Dataset,
    config: RankConfig | None = None,
    *,
    run_dir: str | Path | None = None,
    quiet: bool = True,
    **options: Any,
) -> Ranking:
    """Rank augmentation strategies from the teacher alone: ``score = PAC - CMI``, lower is better.

    All strategies see the same images side by side. With ``budget`` or ``until_sure`` images come
    in stratified order and the ranking may end early; ``images`` then tells how many each strategy
    saw, and ``teacher_std`` is None below two groups of images.

    ``until_sure`` looks after 16 images per class and fold and whenever their number has doubled,
    drops the strategies that are separated from the best, and stops when only the best is left. It
    is wrong with at most 5 % (Bonferroni over looks and comparisons); intervals are widened for the
    looks. ``budget`` counts the seconds before a restart, and never stops before two images per
    class and fold.

    Args:
        teacher: trained classifier ``[B, 3, H, W] -> [B, C]``; used in eval mode on its own
            device, and not changed.
        dataset: from :func:`daqakd.data.load` or ``wrap``; all its training images are used.
        config: options; None for the defaults.
        run_dir: keep the work there; the same call continues it.
        quiet: show no progress.
        options: fields of :class:`daqakd.RankConfig` that replace the configuration's, and of
            :class:`daqakd.InputSpec` that replace the data set's.

    Returns:
        The ranking: CMI, PAC and score without their bias, with 95 % intervals, by the jackknife
        over 10 stratified folds. The paper's own formulas stand beside them in ``ranking.json``.

    Raises:
        InputError: an option that cannot be meant, unknown strategy, empty class, too few images
            for the folds or for ``until_sure``, a teacher of other classes or at chance level, no
            strategy within ``pac_limit``, or another run in ``run_dir``.
    """
    clock = Clock()
    folder = check_run(dataset, run_dir, quiet, teacher=teacher)
    config, dataset = resolve(RankConfig, config, dataset, options)
    clock.budget = config.budget
    job = _job(teacher, dataset, config)
    with working_in(folder):
        accuracy = teacher_accuracy(job)
        if config.may_end_early:
            outcome, stop = _rank_until(job, config, folder, clock, quiet)
        else:
            outcome, stop = _rank_all(job, config, folder, quiet), Stop()
    results = ordered(outcome, config.rule)
    return make_ranking(job, results, config.rule, accuracy, clock, stop)


def _job(teacher: nn.Module, dataset: Dataset, config: RankConfig) -> Job:
    count, classes = count_images(dataset, config.images), dataset.num_classes
    check_images(config, count, classes)
    total = count * config.num_passes
    ends = round_images(config, least_images(dataset), first_look(classes), total)
    return make_job(
        teacher, dataset, config, config.num_passes, ends if config.may_end_early else None
    )


def make_ranking(
    job: Job,
    results: Sequence[StrategyResult],
    criterion: Criterion,
    accuracy: float,
    clock: Clock,
    stop: Stop,
) -> Ranking:
    """Put the results together with what they rest on."""
    facts = {"class": type(job.teacher).__name__, "clean_accuracy": accuracy}
    return Ranking(
        results=results,
        criterion=criterion,
        num_classes=job.dataset.num_classes,
        num_images=results[0].num_images,
        teacher=facts,
        seconds=clock.spent(),
        teacher_std_group=job.std_group,
        inputs=job.dataset.inputs,
        stop=stop,
    )
