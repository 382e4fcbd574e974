"""What a ranking or a search will take, measured on a few batches of its strategies."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from ..augment.compositions import random_compositions
from ..data import Dataset
from .accumulator import Accumulator
from .config import ScoreConfig, SearchConfig
from .halving import rungs
from .job import Job, count_images, least_images, make_job

BATCHES = 1
MEASURED = 3  # compositions of a search


@torch.no_grad()
def image_seconds(
    teacher: nn.Module, dataset: Dataset, config: ScoreConfig, names: Sequence[str]
) -> dict[str, float]:
    """Return the seconds that an image takes with each strategy."""
    job = make_job(teacher, dataset, config)
    short = replace(job, steps=job.steps[:BATCHES])
    _seconds(short, names[0])  # the first batch allocates and chooses
    return {name: _seconds(short, name) for name in names}


def _seconds(job: Job, name: str) -> float:
    accumulator, count = Accumulator(job, name), len(job.steps)
    begin = time.monotonic()
    for batch in accumulator.batches(count):
        accumulator.add(batch)
    accumulator.means.sum().item()  # waits for a GPU
    return (time.monotonic() - begin) / job.images_in(count)


def search_images(dataset: Dataset, config: SearchConfig) -> list[tuple[int, int]]:
    """Return the images of each rung of a search, and how many compositions see them."""
    count, live = count_images(dataset, config.images), config.compositions
    found = []
    for images in rungs(live, least_images(dataset), count):
        found.append((images, live))
        live = (live + 1) // 2
    return found


def search_seconds(teacher: nn.Module, dataset: Dataset, config: SearchConfig) -> float:
    """Return the seconds of a search."""
    names = random_compositions(config.compositions, config.seed)[:MEASURED]
    times = image_seconds(teacher, dataset, config, names)
    seen, images = 0, 0
    for end, live in search_images(dataset, config):
        seen, images = end, images + (end - seen) * live
    return images * sum(times.values()) / len(times)
