"""A batch of augmented images by everybody, from bytes to normalised values."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..augment.plan import Planner, normalised_values
from ..augment.policies import policy
from ..augment.stream import CROP_FRACTION
from ..backends import can_run
from ..data.named import NAMED_STATISTICS
from ..functional.augment import Plan, augment
from .measure import Case, Contestant, Inputs

MEAN, STD = NAMED_STATISTICS["cifar10"]
EPOCH = 0
Share = tuple[int, float, float]  # of a batch: images, least and largest value


@dataclass(frozen=True, eq=False)
class Work:
    """A batch to augment, who draws for it, and what was drawn."""

    policy: str
    pixels: Tensor  # uint8 [B, 3, H, W]
    planner: Planner
    plan: Plan
    dtype: torch.dtype


def photographs(count: int, side: int) -> Tensor:
    """Return smooth noise, whose histograms are like those of photographs: uint8."""
    coarse = torch.randn(count, 3, side // 4, side // 4)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth * 50 + 120).clamp(0, 255).to(torch.uint8)


def draw_and_follow(work: Work, backend: str) -> Tensor:
    """Augment as a training step does."""
    plan = work.planner.plan(EPOCH, work.plan.index)
    return augment(work.pixels, plan, dtype=work.dtype, backend=backend)


def follow(work: Work, backend: str) -> Tensor:
    """Augment by the plan that was drawn before: what the kernels take."""
    return augment(work.pixels, work.plan, dtype=work.dtype, backend=backend)


class Replayed:
    """Draws and follows by replaying a CUDA graph, captured at a batch's first call."""

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.graphs: WeakKeyDictionary[Work, tuple[Any, Tensor]] = WeakKeyDictionary()

    def __call__(self, work: Work) -> Tensor:
        """Return the batch, in memory that the next replay overwrites."""
        if work not in self.graphs:
            self.graphs[work] = self._capture(work)
        graph, images = self.graphs[work]
        graph.replay()
        return images

    def _capture(self, work: Work) -> tuple[Any, Tensor]:
        draw_and_follow(work, self.backend)  # compiles, and fills what is cached
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            images = draw_and_follow(work, self.backend)
        return graph, images


def _torchvision_policy(name: str) -> Any:
    from torchvision import transforms

    policies: dict[str, Callable[[], Any]] = {
        "nothing": lambda: transforms.Lambda(lambda image: image),
        "trivialaugment": transforms.TrivialAugmentWide,
        "randaugment": transforms.RandAugment,
        "autoaugment-cifar": lambda: transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
        "augmix": transforms.AugMix,
    }
    return policies[name]()


@cache
def _pipeline(name: str, side: int) -> Any:
    """Return torchvision's transforms as training scripts write them."""
    from torchvision import transforms

    return transforms.Compose(
        [
            transforms.RandomCrop(side, padding=side // CROP_FRACTION),
            transforms.RandomHorizontalFlip(),
            _torchvision_policy(name),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


@cache
def _pictures(count: int, side: int) -> list[Any]:
    from PIL import Image

    return [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in photographs(count, side)]


def _share(name: str, side: int, rows: range) -> Share:
    """Augment some images in a worker, which has them already and keeps its result."""
    torch.set_num_threads(1)
    pictures = _pictures(rows.stop, side)
    images = torch.stack([_pipeline(name, side)(pictures[i]) for i in rows])
    return len(images), float(images.min()), float(images.max())


@cache
def _workers(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("fork"))


def per_image(work: Work) -> list[Share]:
    """Augment by torchvision, image by image, in as many processes as torch has threads."""
    cores, (batch, _, side, _) = torch.get_num_threads(), work.pixels.shape
    shares = [range(core, batch, cores) for core in range(min(cores, batch))]
    return list(_workers(cores).map(partial(_share, work.policy, side), shares))


@dataclass(frozen=True)
class Augment:
    """Rows of augmenting a batch; a form is a policy, the size counts images.

    ``native`` and the like draw a plan and follow it, ``native-plan`` follows one drawn before,
    ``native-graph`` replays both; a stream, which draws the plans of many batches at once, is
    between the first two. torchvision draws by its own generator, so its pixels are not compared
    here, and always makes float32.
    """

    side: int = 32
    forms: tuple[str, ...] = (
        "nothing",
        "trivialaugment",
        "randaugment",
        "autoaugment-cifar",
        "augmix",
    )

    def contestants(self, device: str) -> dict[str, Contestant]:
        """Return who can run on ``device``, torchvision on the CPU in any case."""
        found: dict[str, Contestant] = {"torchvision": per_image}
        for backend in ("reference", "triton", "native"):
            if can_run("augment", backend, device, torch.uint8) is not None:
                continue
            found[backend] = partial(draw_and_follow, backend=backend)
            found[f"{backend}-plan"] = partial(follow, backend=backend)
            if device == "cuda":
                found[f"{backend}-graph"] = Replayed(backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return ``size`` images with a draw each: crop, mirror, policy, normalised values."""
        drawn = policy(form, self.side, self.side).to(device)
        values = normalised_values(MEAN, STD).to(device)
        room, sides = self.side // CROP_FRACTION, (self.side, self.side)
        planner = Planner(drawn, *sides, room, True, False, None, "image", values, 0)

        def make() -> Inputs:
            pixels = photographs(size, self.side).to(device)
            index = torch.randperm(size).to(device)
            return (Work(form, pixels, planner, planner.plan(EPOCH, index), dtype),)

        numel = 3 * size * self.side**2
        return Case("augment", numel, dtype, form, device, _as_it_is, make, verify, size)


def _as_it_is(contestant: Contestant) -> Contestant:
    return contestant


def verify(result: Tensor | list[Share], inputs: Inputs) -> str | None:
    """Return how many values of a batch differ from the reference's, or None."""
    (work,) = inputs
    if isinstance(result, list):
        low, high = float(work.planner.values.min()), float(work.planner.values.max())
        inside = all(low - 1e-5 <= least <= most <= high + 1e-5 for _, least, most in result)
        whole = sum(count for count, _, _ in result) == len(work.pixels)
        return None if inside and whole else "its images are wrong"
    different = int((result != follow(work, "reference")).sum())
    return f"{different} of {result.numel()} values differ" if different else None


AUGMENT = Augment()
