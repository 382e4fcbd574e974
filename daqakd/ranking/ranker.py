"""``rank``: the teacher over every strategy's augmented training images, side by side."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from .._errors import InputError
from ..augment import PAPER, ResizedCrop, get_strategy
from ..data import Dataset
from .accumulator import Parts
from .anytime import Anytime, DropSeparated, first_look, reason
from .job import Job, Request, check_counts, fingerprint, least_images, make_job, teacher_accuracy
from .result import Criterion, Ranking, Stop, StrategyResult
from .rounds import Clock, Outcome, Rounds

KEPT_VALUES = 2**28  # of the predictions that mixed images keep


def _groups(job: Job, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield strategies whose kept predictions fit into memory together."""
    group: list[str] = []
    kept, own = 0, 2 * job.rows(len(job.steps)) * job.dataset.num_classes
    for name in names:
        mixed = get_strategy(name).mixing is not None
        if group and mixed and kept + own > KEPT_VALUES:
            yield group
            group, kept = [], 0
        group.append(name)
        kept += own * mixed
    yield group


def _complete(job: Job, names: Sequence[str], folder: Path | None, quiet: bool) -> Outcome:
    """See all images with every strategy."""
    parts = Parts(folder, fingerprint(job))
    results: dict[str, StrategyResult] = {}
    for group in _groups(job, names):
        results |= Rounds(job, parts, Clock(), quiet=quiet).run(group).results
    return Outcome(results, list(results), [], out_of_time=False)


def _anytime(
    job: Job,
    names: Sequence[str],
    asked: Anytime,
    criterion: Criterion,
    rounds: Rounds,
) -> tuple[Outcome, Stop]:
    """See images until the best is separated or the time is over."""
    stop = asked.stop(len(job.ends), len(names))
    if asked.until_sure:
        least = first_look(job.dataset.num_classes)
        rounds = replace(rounds, decide=DropSeparated(criterion, stop, least))
    outcome = rounds.run(names)
    text = reason(asked, outcome, stop, job.images, job.rows(job.ends[0]))
    sure = len(outcome.live) == 1 if asked.until_sure else None
    gone = tuple(name for name in names if name not in outcome.live)
    return outcome, replace(stop, reason=text, sure=sure, dropped=gone)


def ordered(outcome: Outcome, criterion: Criterion) -> list[StrategyResult]:
    """Return the results, best first: it is one that saw all the images, within ``pac_limit``."""

    def place(result: StrategyResult) -> tuple[bool, float]:
        return not criterion.allows(result.measures), criterion.value(result.measures)

    best = min((outcome.results[name] for name in outcome.live), key=place)
    if not criterion.allows(best.measures):
        least = min(r.measures.pac for r in outcome.results.values())
        raise InputError(
            f"pac_limit: no strategy is within {criterion.pac_limit}; the least PAC is {least}"
        )
    return [best, *sorted((r for r in outcome.results.values() if r is not best), key=place)]


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
    budget: float | None = None,
    until_sure: bool = False,
    workers: int | None = None,
    teacher_dtype: torch.dtype = torch.float32,
    pipeline: ResizedCrop | None = None,
    semantics: str = "pil",
    run_dir: str | Path | None = None,
    quiet: bool = True,
) -> Ranking:
    """Rank augmentation strategies from the teacher alone: ``score = PAC - CMI``, lower is better.

    All strategies see the same images side by side. With ``budget`` or ``until_sure`` images come
    in stratified order and the ranking may end early; ``images`` then tells how many each strategy
    saw, and ``teacher_std`` is None below two groups of images.

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
        budget: stop after this many seconds, those before a restart included, but not before two
            images per class and fold.
        until_sure: after 16 images per class and fold, and whenever their number has doubled, drop
            the strategies that are separated from the best, and stop when only the best is left.
            It is wrong with at most 5 % (Bonferroni over looks and comparisons); intervals are
            widened for the looks.
        workers: processes that run registered transforms; None to choose.
        teacher_dtype: ``torch.float32``, or ``torch.bfloat16`` to run the teacher under autocast;
            logits go on as float32.
        pipeline: random-resized-crop and colour jitter before each strategy, to the size that the
            teacher sees; None for a padded random crop.
        semantics: ``"pil"`` or ``"torchvision"``, whose pixels the operations equal.
        run_dir: keep the work there; the same call continues it.
        quiet: show no progress.

    Returns:
        The ranking, with 95 % jackknife intervals over 10 stratified folds.

    Raises:
        InputError: unknown strategy, empty class, too few images for the folds, a teacher of other
            classes or at chance level, no strategy within ``pac_limit``, a budget not above 0, or
            ``until_sure`` with one strategy, fewer than 16 images per class and fold, or
            ``pac_limit``.
    """
    names = list(PAPER if strategies is None else dict.fromkeys(strategies))
    for name in names:
        get_strategy(name)
    if not names:
        raise InputError("strategies: need at least one")
    clock, criterion = Clock(budget), Criterion(cmi_weight, pac_weight, pac_limit)
    early = Anytime(budget, until_sure)
    early.check(len(names), pac_limit)
    asked = Request(images, passes, seed, workers, teacher_dtype, pipeline, semantics)
    count, classes = check_counts(dataset, images), dataset.num_classes
    early.check_images(count, classes)
    ends = early.ends(least_images(dataset), first_look(classes), count * max(passes, 1))
    job = make_job(teacher, dataset, asked, ends if early.wanted else None)
    accuracy = teacher_accuracy(job)
    folder = None if run_dir is None else Path(run_dir)
    if early.wanted:
        key = fingerprint(job, (names, criterion) if until_sure else None)
        rounds = Rounds(job, Parts(folder, key), clock, quiet=quiet)
        outcome, stop = _anytime(job, names, early, criterion, rounds)
    else:
        outcome, stop = _complete(job, names, folder, quiet), Stop()
    results = ordered(outcome, criterion)
    return make_ranking(job, results, criterion, accuracy, clock, stop)


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
        results,
        criterion,
        job.dataset.num_classes,
        results[0].images,
        facts,
        clock.spent(),
        job.std_group,
        stop,
        job.asked.pipeline,
        job.asked.semantics,
    )
