"""What the strategies of a ranking share: teacher, resident images, folds, order of work."""

import copy
import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..augment import ResizedCrop, Stream, check_pipeline, clean_inputs, get_strategy
from ..augment.draws import permutation
from ..augment.stream import fits_on
from ..data import Dataset, class_ranks
from .confidence import FOLDS

ENGINE = 3  # raised when the same settings give other numbers than before
BATCH = 500
STD_GROUP = 1000
CLEAN_IMAGES = 2000
SMALL_SET = 5000
TEACHER_DTYPES = (torch.float32, torch.bfloat16)


@dataclass(frozen=True)
class Request:
    """What the caller asked for, as :func:`daqakd.rank` documents it."""

    images: int | None = None
    passes: int = 1
    seed: int = 0
    workers: int | None = None
    teacher_dtype: torch.dtype = torch.float32
    pipeline: ResizedCrop | None = None
    semantics: str = "pil"


@dataclass(frozen=True)
class Job:
    """Everything the strategies share: ``pixels`` too, on ``device`` where they fit."""

    teacher: nn.Module
    dataset: Dataset
    pixels: Tensor  # uint8 [N, 3, H, W]
    steps: list[tuple[int, Tensor]]  # pass, image indices int64 [at most BATCH]
    ends: list[int]  # steps up to the end of each round
    folds: Tensor  # int64 [N], fold of every training image
    places: Tensor  # int64 [N], where an image stands among the chosen ones, in shuffled order
    images: int  # per pass
    std_group: int
    device: torch.device
    asked: Request

    def stream(self, name: str) -> Stream:
        """Return the batches of a strategy; a registered transform reads images on the CPU."""
        strategy = get_strategy(name)
        train = self.dataset.train
        return Stream(
            train.pixels if strategy.transform else self.pixels,
            train.labels,
            strategy,
            mean=self.dataset.mean,
            std=self.dataset.std,
            seed=self.asked.seed,
            flip=self.dataset.flip,
            pipeline=self.asked.pipeline,
            semantics=self.asked.semantics,
            workers=automatic_workers(self.images, self.asked.workers),
            device=self.device,
        )

    def logits(self, images: Tensor) -> Tensor:
        """Return the teacher's float32 logits ``[B, C]`` of normalised images ``[B, 3, H, W]``."""
        dtype = self.asked.teacher_dtype
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits: Tensor = self.teacher(images.contiguous(memory_format=torch.channels_last))
        return logits.float()

    def clean_inputs(self, index: Tensor) -> Tensor:
        """Return clean training images, normalised: float32 ``[B, 3, S, S]``."""
        data, asked = self.dataset, self.asked
        pixels, views = data.train.pixels[index], (asked.pipeline, asked.semantics)
        return clean_inputs(pixels, data.mean, data.std, self.device, *views)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images that strategies work on."""
        if self.asked.pipeline is not None:
            return self.asked.pipeline.size, self.asked.pipeline.size
        height, width = self.pixels.shape[-2:]
        return height, width

    def rows(self, done: int) -> int:
        """Return how many augmented images the first ``done`` steps hold."""
        return sum(len(index) for _, index in self.steps[:done])


def automatic_workers(images: int, asked: int | None = None) -> int:
    """Return how many processes should augment a set of this size, unless ``asked`` says."""
    if asked is not None:
        return asked
    return (os.cpu_count() or 1) if images >= SMALL_SET else 0


def least_images(dataset: Dataset) -> int:
    """Return the fewest images that the folds need: two per class and fold."""
    return 2 * FOLDS * dataset.num_classes


def check_counts(dataset: Dataset, images: int | None) -> int:
    """Return how many images to rank on."""
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


def _by_share(labels: Tensor, order: Tensor) -> Tensor:
    """Return ``order`` rearranged so that every beginning has all classes at their shares."""
    share = (class_ranks(labels, order) + 0.5) / torch.bincount(labels)[labels]
    return order[torch.argsort(share[order], stable=True)]


def _steps(
    chosen: Tensor, passes: int, ends: Sequence[int]
) -> tuple[list[tuple[int, Tensor]], list[int]]:
    """Cut ``passes`` times ``chosen`` into batches that stop at ``ends``, in images."""
    count, steps, stops = len(chosen), [], []
    cuts = sorted({0, *ends, *(count * (p + 1) for p in range(passes))})
    for start, stop in pairwise(cuts):
        number = start // count
        part = chosen[start - number * count : stop - number * count]
        steps += [(number, chunk) for chunk in part.split(BATCH)]
        if stop in ends:
            stops.append(len(steps))
    return steps, stops


def make_job(
    teacher: nn.Module, dataset: Dataset, asked: Request, ends: Sequence[int] | None = None
) -> Job:
    """Prepare the work: ``ends`` are the rounds' ends in images of all passes, None for one round.

    Rounds take images by class share; one round takes them in shuffled order.
    """
    if asked.passes < 1:
        raise InputError(f"passes: expected at least 1, got {asked.passes}")
    if asked.teacher_dtype not in TEACHER_DTYPES:
        raise InputError(
            f"teacher_dtype: expected torch.float32 or torch.bfloat16, got {asked.teacher_dtype}"
        )
    check_pipeline(asked.pipeline, asked.semantics)
    count = check_counts(dataset, asked.images)
    labels = dataset.train.labels
    order = permutation(asked.seed, 0, torch.arange(len(labels)))
    by_share = _by_share(labels, order)[:count]
    shuffled = order[torch.isin(order, by_share)]
    places = torch.full((len(labels),), -1)
    places[shuffled] = torch.arange(count)
    first, pixels = next(iter(teacher.parameters()), None), dataset.train.pixels
    device = torch.device("cpu") if first is None else first.device
    whole = [count * asked.passes]
    steps, stops = _steps(shuffled if ends is None else by_share, asked.passes, ends or whole)
    return Job(
        teacher=copy.deepcopy(teacher).eval().to(memory_format=torch.channels_last),
        dataset=dataset,
        pixels=pixels.to(device) if fits_on(pixels, device) else pixels,
        steps=steps,
        ends=stops,
        folds=class_ranks(labels, order) % FOLDS,
        places=places,
        images=count,
        std_group=min(STD_GROUP, max(count // 10, 1)),
        device=device,
        asked=asked,
    )


def teacher_accuracy(job: Job) -> float:
    """Return the teacher's accuracy on clean training images; near chance is an error."""
    dataset = job.dataset
    order = permutation(job.asked.seed, 0, torch.arange(len(dataset.train)))
    index = order[:CLEAN_IMAGES]
    right = 0
    for part in index.split(BATCH):
        logits = job.logits(job.clean_inputs(part))
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
    asked = job.asked
    settings = (job.dataset.mean, job.dataset.std, job.dataset.flip, asked.passes, asked.seed)
    engine = (ENGINE, BATCH, asked.semantics, asked.teacher_dtype, job.ends, job.std_group, FOLDS)
    digest.update(repr((settings, engine, more)).encode())
    if asked.pipeline is not None:
        digest.update(repr(asked.pipeline).encode())
    return digest.hexdigest()
