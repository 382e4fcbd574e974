"""The kernels give the reference's pixels: every setting, size, stage, dtype and memory order."""

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from daqakd.augment import ranges
from daqakd.augment.plan import Planner, normalised_values
from daqakd.augment.policies import POLICIES, policy
from daqakd.augment.settings import ImageContext, stack_settings
from daqakd.functional import augment
from daqakd.functional._checks import Semantics
from daqakd.functional.augment import Plan, Settings

from ..helpers.cases import SIMULATED, require
from ..helpers.machine import each_instruction_set, printed_by, with_threads
from ..helpers.pictures import adversarial
from ..helpers.plans import every_row, example_plan, random_pixels

KERNELS: dict[str, tuple[Semantics, bool, ranges.MagnitudeRanges]] = {
    "pil": ("pil", False, ranges.TRIVIALAUGMENT),
    "tensor": ("torchvision", False, ranges.TRIVIALAUGMENT),
    "bilinear": ("torchvision", True, ranges.AUGMIX),
}
NAMES = (*ranges.GEOMETRIC, *ranges.ENHANCE, *ranges.IMAGE_OPS, "Invert")
NORMALISED = normalised_values((0.49, 0.48, 0.44), (0.2, 0.3, 0.25))
DTYPES = (torch.uint8, torch.float16, torch.bfloat16, torch.float32, torch.float64)
each_kernel = pytest.mark.parametrize("kernels", KERNELS)
each_backend = pytest.mark.parametrize("backend", ["native", *SIMULATED])
each_simulated = pytest.mark.parametrize("backend", SIMULATED)
each_policy = pytest.mark.parametrize("name", POLICIES)

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@contextmanager
def filled_memory():
    """Fill what a library allocates with NaN, or 255: an element left unwritten then shows."""
    torch.use_deterministic_algorithms(True)
    assert torch.utils.deterministic.fill_uninitialized_memory
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def runs_on(backend: str) -> None:
    require("augment", backend, torch.uint8)


@cache
def all_settings(kernels: str, height: int, width: int) -> Settings:
    """Return every operation at every magnitude and sign of the widest ranges."""
    semantics, bilinear, ranged = KERNELS[kernels]
    context = ImageContext(height, width, semantics, bilinear)
    settings = [s for name in NAMES for s in ranged.settings(name, slice(None), context)]
    return stack_settings(settings)


def compare(pixels: Tensor, plan: Plan, backend: str, **options) -> None:
    """Compare bits; float64 and 16-bit outputs are casts of float32 on every backend."""
    wanted = augment(pixels, plan, backend="reference", **options)
    with filled_memory():
        found = augment(pixels, plan, backend=backend, **options)
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    different = found != wanted
    assert not different.any(), f"{int(different.sum())} of {different.numel()} values differ"


def in_bytes(plan: Plan) -> Plan:
    return replace(plan, values=None)


@each_kernel
@pytest.mark.parametrize("side", [32, 64])
def test_every_setting_natively(kernels, side):
    runs_on("native")
    pixels = adversarial(side)
    plan = every_row(all_settings(kernels, side, side), len(pixels))
    compare(pixels, plan, "native", dtype=torch.uint8)


@each_kernel
def test_every_setting_at_224_natively(kernels):
    """Every fifth setting, on noise and on two levels."""
    runs_on("native")
    pixels = adversarial(224)[[4, 6]]
    plan = every_row(all_settings(kernels, 224, 224), 2)
    rows = torch.arange(0, len(plan.index), 5)
    part = {name: getattr(plan, name)[rows] for name in ("index", "crop", "flip", "setting")}
    compare(pixels, replace(plan, **part), "native", dtype=torch.uint8)


def compare_rows(plan: Plan, pixels: Tensor, rows: Tensor, backend: str) -> None:
    """Compare some rows of a plan."""
    runs_on(backend)
    part = {name: getattr(plan, name)[rows] for name in ("index", "crop", "flip", "setting")}
    compare(pixels, replace(plan, **part), backend, dtype=torch.uint8)


@each_simulated
@each_kernel
def test_settings(kernels, backend):
    """The first and the last setting of each kind; a channel is white, one two-level, one noise."""
    settings, pixels = all_settings(kernels, 8, 8), adversarial(8)[[2, 4, 6], [0, 1, 2]][None]
    of_kind = [(settings.kind == code).nonzero()[:, 0] for code in settings.kind.unique() if code]
    rows = torch.cat([rows[[0, -1]].unique() for rows in of_kind]) - 1  # the plan leaves out none
    compare_rows(every_row(settings, 1), pixels, rows, backend)


@pytest.mark.slow
@each_simulated
@each_kernel
def test_every_setting(kernels, backend):
    settings, pixels = all_settings(kernels, 8, 8), adversarial(8)[[2, 4, 6]]
    plan = every_row(settings, len(pixels))
    compare_rows(plan, pixels, torch.arange(len(plan.index)), backend)


def many(count: int) -> Tensor:
    return adversarial(32).repeat(-(-count // 8), 1, 1, 1)[:count]


def policy_plan(name: str, semantics: str, side: int, count: int, mixing: str | None) -> Plan:
    planner = Planner(
        policy(name, side, side, semantics),
        side, side, side // 8, True, mixing != "mixup", mixing, "image", NORMALISED, 3,
    )  # fmt: skip
    index = torch.randperm(count)
    return planner.plan(5, index, None if mixing is None else torch.randperm(count)[: count - 1])


@pytest.mark.parametrize("semantics", ["pil", "torchvision"])
@each_policy
def test_whole_policies_natively(name, semantics):
    """Every dtype, memory order and way to mix, on odd batches."""
    runs_on("native")
    ways = [(None, 31), ("cutmix", 33), ("mixup", 7)]
    for number, (mixing, count) in enumerate(ways):
        plan, pixels = policy_plan(name, semantics, 32, count, mixing), many(count)
        for dtype in DTYPES[1:]:
            compare(pixels, plan, "native", dtype=dtype, channels_last=number % 2 == 0)
        if mixing != "mixup":
            for channels_last in (False, True):
                options = {"dtype": torch.uint8, "channels_last": channels_last}
                compare(pixels, in_bytes(plan), "native", **options)


@each_simulated
@each_policy
def test_whole_policies(name, backend):
    runs_on(backend)
    for mixing, dtype in ((None, torch.bfloat16), ("cutmix", torch.float32)):
        plan = policy_plan(name, "torchvision", 8, 2, mixing)
        pixels = adversarial(8)[[4, 6]]
        compare(pixels, plan, backend, dtype=dtype, channels_last=mixing is None)


SIZES = [(1, 1), (2, 9), (3, 3), (7, 5), (9, 4), (40, 24), (2, 257), (300, 3), (5, 700)]


@pytest.mark.parametrize("size", SIZES, ids=str)
@each_kernel
def test_odd_sizes_natively(kernels, size):
    runs_on("native")
    pixels = random_pixels(2, *size)
    plan = every_row(all_settings(kernels, *size), 2)
    compare(pixels, plan, "native", dtype=torch.uint8)


@each_backend
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (7, 5)], ids=str)
@pytest.mark.parametrize(
    ("chains", "slots", "mix"),
    [(1, 0, None), (1, 1, None), (1, 2, "cutmix"), (3, 3, None), (3, 3, "cutmix"), (1, 1, "mixup")],
    ids=["none", "one", "two-cutmix", "chains", "chains-cutmix", "mixup"],
)
def test_every_stage(chains, slots, mix, size, backend):
    runs_on(backend)
    count = 40 if backend == "native" else 2
    plan, pixels = example_plan(count, chains, slots, mix), random_pixels(count, *size)
    for channels_last in (False, True) if backend == "native" else (chains == 3,):
        compare(pixels, plan, backend, channels_last=channels_last)


def test_any_number_of_threads_gives_the_same_bits():
    runs_on("native")
    plan, pixels = (
        policy_plan("augmix", "pil", 32, 65, "cutmix"),
        adversarial(32).repeat(9, 1, 1, 1),
    )
    results = with_threads(lambda: augment(pixels, plan, backend="native"))
    assert all(torch.equal(result, results[0]) for result in results)


def test_any_order_of_a_batch_gives_the_same_images():
    runs_on("native")
    plan, pixels = (
        policy_plan("randaugment", "pil", 32, 64, None),
        adversarial(32).repeat(8, 1, 1, 1),
    )
    order = torch.randperm(64)
    rows = {name: getattr(plan, name)[order] for name in ("index", "crop", "flip", "setting")}
    turned = replace(plan, **rows, erase=plan.erase[order])
    whole = augment(pixels, plan, backend="native")
    assert torch.equal(augment(pixels, turned, backend="native"), whole[order])


def test_inputs_that_are_not_contiguous():
    runs_on("native")
    plan, pixels = example_plan(9, 3, 3, "cutmix"), random_pixels(9)
    strided = {
        name: value.mT.contiguous().mT
        for name, value in vars(plan).items()
        if isinstance(value, Tensor) and value.dim() > 1
    }
    compare(pixels.to(memory_format=torch.channels_last), replace(plan, **strided), "native")


def digest() -> str:
    whole = hashlib.sha256()
    torch.manual_seed(0)
    for kernels in KERNELS:
        plan = every_row(all_settings(kernels, 33, 35), 2)
        result = augment(random_pixels(2, 33, 35), plan, dtype=torch.uint8, backend="native")
        whole.update(result.numpy().tobytes())
    plan, pixels = policy_plan("augmix", "pil", 32, 64, "mixup"), many(64)
    for dtype in DTYPES[1:]:
        result = augment(pixels, plan, dtype=dtype, backend="native")
        whole.update(result.view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()


@each_instruction_set
def test_any_instruction_set_gives_the_same_bits(instruction_set):
    runs_on("native")
    code = "from tests.ops import test_augment_backends as t; print(t.digest())"
    assert printed_by(code, DAQAKD_CPU=instruction_set) == digest()
