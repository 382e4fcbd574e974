"""The work of a ranking that all strategies share: teacher, resident images, folds, batches."""

import copy
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .. import _ranks
from .._arguments import device_of_model
from .._errors import InputError
from ..augment import Stream, clean_inputs, get_strategy
from ..augment.draws import permutation
from ..augment.stream import fits_on
from ..data import Dataset, class_ranks
from ..models import forward_pass, logits_of
from .confidence import FOLDS
from .config import ScoreConfig

ENGINE = 4  # raised when the same settings give other numbers than before
BATCH = 500
STD_GROUP = 1000
CLEAN_IMAGES = 2000
SMALL_SET = 5000


@dataclass(frozen=True)
class Job:
    """Everything the strategies share; ``pixels`` are on ``device`` where they fit."""

    teacher: nn.Module
    dataset: Dataset
    pixels: Tensor  # uint8 [N, 3, H, W]
    steps: list[tuple[int, Tensor]]  # pass, image indices int64 [at most BATCH]
    round_steps: list[int]  # number of steps up to the end of each round
    folds: Tensor  # int64 [N], fold of every training image
    positions: Tensor  # int64 [N], of an image among the chosen ones in shuffled order, else -1
    num_images: int  # per pass
    passes: int
    std_group: int
    device: torch.device
    config: ScoreConfig

    def stream(self, name: str) -> Stream:
        """Return the batches of a strategy; a registered transform reads images on the CPU."""
        strategy = get_strategy(name)
        train = self.dataset.train
        return Stream(
            train.pixels if strategy.transform else self.pixels,
            train.labels,
            strategy,
            inputs=self.dataset.inputs,
            seed=self.config.seed,
            flip=self.dataset.flip,
            workers=automatic_workers(self.num_images, self.config.workers),
            device=self.device,
        )

    def logits(self, images: Tensor) -> Tensor:
        """Return the teacher's float32 logits ``[B, C]`` of normalised images ``[B, 3, H, W]``."""
        dtype = self.config.dtype
        autocast = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
        with forward_pass("teacher", images), autocast:
            output = self.teacher(images.contiguous(memory_format=torch.channels_last))
        return logits_of(output).float()

    def clean_inputs(self, index: Tensor) -> Tensor:
        """Return clean training images, normalised: float32 ``[B, 3, S, S]``."""
        return clean_inputs(self.dataset.train.pixels[index], self.dataset.inputs, self.device)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images that strategies work on."""
        height, width = self.pixels.shape[-2:]
        return self.dataset.inputs.sides(height, width)

    def images_in(self, steps: int) -> int:
        """Return how many augmented images the first ``steps`` hold."""
        return sum(len(index) for _, index in self.steps[:steps])


def automatic_workers(num_images: int, workers: int | None = None) -> int:
    """Return how many processes should augment a set of this size, unless ``workers`` says."""
    if workers is not None:
        return workers
    cores = (os.cpu_count() or 1) // _ranks.count()
    return max(cores, 1) if num_images >= SMALL_SET else 0


def least_images(dataset: Dataset) -> int:
    """Return the fewest images that the folds need: two per class and fold."""
    return 2 * FOLDS * dataset.num_classes


def count_images(dataset: Dataset, images: int | None) -> int:
    """Return how many images to rank on: ``images``, or all.

    Raises:
        InputError: an empty class, or too few or too many images.
    """
    counts = torch.bincount(dataset.train.labels, minlength=dataset.num_classes)
    empty = [dataset.classes[y] for y in (counts == 0).nonzero()[:, 0].tolist()]
    if empty:
        raise InputError(
            f"classes without training images: {', '.join(empty)}; remove or fill them"
        )
    total, least = len(dataset.train), least_images(dataset)
    wanted = total if images is None else images
    if wanted < least or wanted > total:
        raise InputError(
            f"images: {wanted} asked for; {FOLDS} folds of {dataset.num_classes} classes need at"
            f" least {least}, and the data set has {total}"
        )
    return wanted


def _stratified(labels: Tensor, order: Tensor) -> Tensor:
    """Return ``order`` rearranged so that every beginning holds all classes in proportion."""
    quantile = (class_ranks(labels, order) + 0.5) / torch.bincount(labels)[labels]
    return order[torch.argsort(quantile[order], stable=True)]


def _steps(
    chosen: Tensor, passes: int, round_images: Sequence[int]
) -> tuple[list[tuple[int, Tensor]], list[int]]:
    """Cut ``passes`` times ``chosen`` into batches that stop where the rounds end."""
    count, steps, round_steps = len(chosen), [], []
    cuts = sorted({0, *round_images, *(count * (p + 1) for p in range(passes))})
    for start, stop in pairwise(cuts):
        number = start // count
        part = chosen[start - number * count : stop - number * count]
        steps += [(number, chunk) for chunk in part.split(BATCH)]
        if stop in round_images:
            round_steps.append(len(steps))
    return steps, round_steps


def make_job(
    teacher: nn.Module,
    dataset: Dataset,
    config: ScoreConfig,
    passes: int = 1,
    round_images: Sequence[int] | None = None,
) -> Job:
    """Prepare the work of a ranking.

    Rounds take images in stratified order; a single round takes them in shuffled order.

    Args:
        teacher: the classifier, copied.
        dataset: its training images are ranked on.
        config: subset, seed, teacher's dtype.
        passes: augmented passes over the images.
        round_images: number of images of all passes at the end of each round; None for one round.
    """
    count = count_images(dataset, config.images)
    labels = dataset.train.labels
    order = permutation(config.seed, 0, torch.arange(len(labels)))
    stratified = _stratified(labels, order)[:count]
    shuffled = order[torch.isin(order, stratified)]
    positions = torch.full((len(labels),), -1)
    positions[shuffled] = torch.arange(count)
    device, pixels = device_of_model("teacher", teacher), dataset.train.pixels
    chosen = shuffled if round_images is None else stratified
    steps, round_steps = _steps(chosen, passes, round_images or [count * passes])
    return Job(
        teacher=copy.deepcopy(teacher).eval().to(memory_format=torch.channels_last),
        dataset=dataset,
        pixels=pixels.to(device) if fits_on(pixels, device) else pixels,
        steps=steps,
        round_steps=round_steps,
        folds=class_ranks(labels, order) % FOLDS,
        positions=positions,
        num_images=count,
        passes=passes,
        std_group=min(STD_GROUP, max(count // 10, 1)),
        device=device,
        config=config,
    )


def teacher_accuracy(job: Job) -> float:
    """Return the teacher's accuracy on clean training images; near chance is an error."""
    dataset = job.dataset
    order = permutation(job.config.seed, 0, torch.arange(len(dataset.train)))
    index = order[:CLEAN_IMAGES]
    counted = torch.zeros((), dtype=torch.int64)
    for part in _ranks.share(index).split(BATCH):
        logits = job.logits(job.clean_inputs(part))
        if logits.dim() != 2 or logits.shape[1] != dataset.num_classes:
            raise InputError(
                f"teacher: returns {tuple(logits.shape)}, but {dataset.name} has"
                f" {dataset.num_classes} classes; use a teacher trained on them"
            )
        counted += (logits.argmax(1).cpu() == dataset.train.labels[part]).sum()
    right = int(_ranks.total(counted, len(index)))
    accuracy, chance = right / len(index), 1 / dataset.num_classes
    if accuracy < chance + 4 * math.sqrt(chance * (1 - chance) / len(index)):
        raise InputError(
            f"teacher: {accuracy:.1%} right on {len(index)} clean training images of"
            f" {dataset.name}, where chance is {chance:.1%}; its ranking would be noise. Wrong"
            " weights, class order, normalisation (--mean, --std) or input size (--crop,"
            " --input-size)?"
        )
    return accuracy


def fingerprint(job: Job, *more: object) -> str:
    """Return a hash of all that a strategy's numbers depend on, its name apart, and of ``more``."""
    digest = hashlib.sha256()
    train = job.dataset.train
    named = job.teacher.state_dict() | {"labels": train.labels}
    for key, value in (named | {"chosen": torch.cat([c for _, c in job.steps])}).items():
        flat = value.detach().cpu().contiguous().reshape(-1)
        digest.update(key.encode())
        digest.update(memoryview(flat.view(torch.uint8).numpy()))
    digest.update(train.digest().encode())
    config, inputs, flip = job.config, job.dataset.inputs, job.dataset.flip
    settings = (inputs.mean, inputs.std, flip, job.passes, config.seed)
    engine = (ENGINE, BATCH, inputs.semantics, config.dtype, job.round_steps, job.std_group, FOLDS)
    digest.update(repr((settings, engine, more)).encode())
    if inputs.pipeline is not None:
        digest.update(repr(inputs.pipeline).encode())
    return digest.hexdigest()
