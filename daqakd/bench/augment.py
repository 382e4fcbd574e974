"""A batch of augmented images, from bytes to normalised values, against torchvision per image."""

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from ..augment.plan import Planner, normalised_values
from ..augment.policies import policy
from ..augment.stream import CROP_FRACTION
from ..backends import can_run
from ..data.named import NAMED_STATISTICS
from ..functional.augment import Plan, augment
from .device_time import captured
from .measure import Case, Inputs, Provider
from .roofline import Traffic

MEAN, STD = NAMED_STATISTICS["cifar10"]
EPOCH = 0


@dataclass(frozen=True, eq=False)
class Batch:
    """A batch to augment, its planner, and a plan that was drawn before."""

    policy: str
    pixels: Tensor  # uint8 [B, 3, H, W]
    planner: Planner
    plan: Plan
    dtype: torch.dtype


class Extent(NamedTuple):
    """What is known of the images that a worker has made: it keeps their pixels."""

    num_images: int
    lowest: float
    highest: float


def smooth_noise(count: int, side: int) -> Tensor:
    """Return smooth noise, whose histograms are like those of photographs: uint8 [N, 3, H, W]."""
    coarse = torch.randn(count, 3, side // 4, side // 4)
    smooth = torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")
    return (smooth * 50 + 120).clamp(0, 255).to(torch.uint8)


def plan_and_augment(batch: Batch, backend: str) -> Tensor:
    """Draw a plan and augment by it, as a training step does."""
    plan = batch.planner.plan(EPOCH, batch.plan.index)
    return augment(batch.pixels, plan, dtype=batch.dtype, backend=backend)


def augment_by_plan(batch: Batch, backend: str) -> Tensor:
    """Augment by the plan that was drawn before: the time of the kernels."""
    return augment(batch.pixels, batch.plan, dtype=batch.dtype, backend=backend)


class GraphReplay:
    """``plan_and_augment`` by replaying a CUDA graph, captured at a batch's first call."""

    is_replay = True  # which no other graph can hold

    def __init__(self, backend: str) -> None:
        self.backend = backend
        self.graphs: WeakKeyDictionary[Batch, tuple[Any, Tensor]] = WeakKeyDictionary()

    def __call__(self, batch: Batch) -> Tensor:
        """Return the images, in memory that the next replay overwrites."""
        if batch not in self.graphs:
            self.graphs[batch] = captured([partial(plan_and_augment, batch, self.backend)])
        graph, images = self.graphs[batch]
        graph.replay()
        return images


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
def _pil_images(count: int, side: int) -> list[Any]:
    from PIL import Image

    return [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in smooth_noise(count, side)]


def _augment_rows(name: str, side: int, rows: range) -> Extent:
    """Augment some images in a worker, which has them already and keeps its result."""
    torch.set_num_threads(1)
    pictures = _pil_images(rows.stop, side)
    images = torch.stack([_pipeline(name, side)(pictures[i]) for i in rows])
    return Extent(len(images), float(images.min()), float(images.max()))


@cache
def _workers(count: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(count, multiprocessing.get_context("fork"))


def torchvision_per_image(batch: Batch) -> list[Extent]:
    """Augment by torchvision, image by image, in as many processes as torch has threads."""
    cores, (count, _, side, _) = torch.get_num_threads(), batch.pixels.shape
    rows = [range(core, count, cores) for core in range(min(cores, count))]
    return list(_workers(cores).map(partial(_augment_rows, batch.policy, side), rows))


@dataclass(frozen=True)
class AugmentBenchmark:
    """Augmenting a batch; a form is a policy, the size counts images.

    ``native`` and the like draw a plan and augment by it, ``native-plan`` augments by one drawn
    before, ``native-graph`` replays both; a stream, which draws the plans of many batches at once,
    is between the first two. torchvision draws by its own generator, so its pixels are not
    compared here, and always makes float32.
    """

    side: int = 32
    op: ClassVar[str] = "augment"
    forms: tuple[str, ...] = (
        "nothing",
        "trivialaugment",
        "randaugment",
        "autoaugment-cifar",
        "augmix",
    )
    size_unit: Literal["images"] = "images"
    traffic: ClassVar[Traffic] = Traffic(1, extra_bytes=1.0)

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``, an installed torchvision on the CPU."""
        found: dict[str, Provider] = {}
        if find_spec("torchvision"):
            found["torchvision"] = torchvision_per_image
        for backend in ("reference", "triton", "native"):
            if can_run("augment", backend, device, torch.uint8) is not None:
                continue
            found[backend] = partial(plan_and_augment, backend=backend)
            found[f"{backend}-plan"] = partial(augment_by_plan, backend=backend)
            if device == "cuda":
                found[f"{backend}-graph"] = GraphReplay(backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return ``size`` images with a draw each: crop, mirror, policy, normalised values."""
        return Case(
            op=self.op,
            numel=3 * size * self.side**2,
            dtype=dtype,
            form=form,
            device=device,
            bind=lambda provider: provider,
            make=partial(self._inputs, self._planner(form, device), form, size, dtype),
            verify=verify,
            num_images=size,
            traffic=self.traffic,
        )

    def _planner(self, form: str, device: str) -> Planner:
        drawn = policy(form, self.side, self.side).to(device)
        values = normalised_values(MEAN, STD).to(device)
        room, sides = self.side // CROP_FRACTION, (self.side, self.side)
        return Planner(drawn, *sides, room, True, False, None, "image", values, 0)

    def _inputs(self, planner: Planner, form: str, size: int, dtype: torch.dtype) -> Inputs:
        device = planner.values.device
        pixels = smooth_noise(size, self.side).to(device)
        plan = planner.plan(EPOCH, torch.randperm(size).to(device))
        return (Batch(form, pixels, planner, plan, dtype),)


def verify(result: Tensor | list[Extent], inputs: Inputs) -> str | None:
    """Return how many values of a batch differ from the reference's, or None."""
    (batch,) = inputs
    if isinstance(result, list):
        low, high = float(batch.planner.values.min()), float(batch.planner.values.max())
        inside = all(low - 1e-5 <= least <= most <= high + 1e-5 for _, least, most in result)
        whole = sum(count for count, _, _ in result) == len(batch.pixels)
        return None if inside and whole else "its images are wrong"
    different = int((result != augment_by_plan(batch, "reference")).sum())
    return f"{different} of {result.numel()} values differ" if different else None


AUGMENT = AugmentBenchmark()
