"""Every operation at every magnitude gives Pillow's, or torchvision's, pixels."""

import itertools

import pytest
import torch
from torch import Tensor
from torchvision.transforms import _functional_tensor

from daqakd.augment import ranges
from daqakd.augment.policies import POLICIES, policy
from daqakd.augment.settings import ImageContext, make_setting, stack_settings
from daqakd.functional import augment
from daqakd.functional._checks import Semantics

from ..helpers.cases import each_backend, require
from ..helpers.pictures import from_pil, pictures, to_pil
from ..helpers.plans import every_row
from .conftest import FUSED, fused_grid, machine_grid

NAMES = ("Identity", *ranges.GEOMETRIC, *ranges.ENHANCE, *ranges.IMAGE_OPS, "Invert")
TIES_LIMIT = 2e-3  # of the pixels, at which coordinates or values tie
GEOMETRY_LIMIT = 3e-5  # of the pixels, where coordinates of a side of 224 tie
RANGES = {
    "trivialaugment": ranges.TRIVIALAUGMENT,
    "randaugment": ranges.RANDAUGMENT,
    "autoaugment": ranges.AUTOAUGMENT,
    "augmix": ranges.AUGMIX,
}
KERNELS: dict[str, tuple[Semantics, bool]] = {
    "pil": ("pil", False),
    "tensor": ("torchvision", False),
    "bilinear": ("torchvision", True),
}


def signed_magnitudes(name: str, tables: str, context: ImageContext) -> list[float]:
    found = RANGES[tables].magnitudes(name, context)
    return [
        sign * m for m in found for sign in (1.0, -1.0)[: ranges.MagnitudeRanges.num_signs(name)]
    ]


def expected(images: Tensor, name: str, magnitude: float, kernels: str) -> Tensor:
    """Return what torchvision's own dispatch makes of the images."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import _apply_op

    mode = InterpolationMode.BILINEAR if kernels == "bilinear" else InterpolationMode.NEAREST
    if kernels != "pil":
        return _apply_op(images, name, magnitude, mode, None)
    return torch.stack(
        [from_pil(_apply_op(to_pil(i), name, magnitude, mode, None)) for i in images]
    )


def differing(images: Tensor, name: str, tables: str, kernels: str, backend: str) -> float:
    """Return the fraction of pixels that differ over all magnitudes."""
    semantics, bilinear = KERNELS[kernels]
    height, width = images.shape[-2:]
    context = ImageContext(height, width, semantics, bilinear)
    found = signed_magnitudes(name, tables, context)
    plan = every_row(
        stack_settings([make_setting(name, magnitude, context) for magnitude in found]), len(images)
    )
    results = augment(images, plan, dtype=torch.uint8, backend=backend).split(len(images))
    # unfused, an ulp before rounding is a level after it
    near = 1 if kernels == "bilinear" and not FUSED else 0
    wrong = [
        ((result.int() - expected(images, name, magnitude, kernels).int()).abs() > near).sum()
        for result, magnitude in zip(results, found, strict=True)
    ]
    return float(sum(wrong)) / (images.numel() * len(found))


each_name = pytest.mark.parametrize("name", NAMES)
each_kernel = pytest.mark.parametrize("kernels", KERNELS)
each_source = pytest.mark.parametrize("source", ["adversarial", "real"])


@each_backend
@each_source
@each_kernel
@each_name
def test_operation(name, kernels, source, backend):
    require("augment", backend, torch.uint8)
    tables = "augmix" if kernels == "bilinear" else "trivialaugment"
    assert differing(pictures(source, 32), name, tables, kernels, backend) == 0


SLOW = [(64, "trivialaugment"), (64, "autoaugment"), (32, "autoaugment"), (33, "trivialaugment")]


@pytest.mark.slow
@each_backend
@each_source
@each_kernel
@each_name
@pytest.mark.parametrize(("side", "tables"), SLOW, ids=lambda v: str(v))
def test_operation_at_other_sizes(name, kernels, source, side, tables, backend):
    require("augment", backend, torch.uint8)
    assert differing(pictures(source, side), name, tables, kernels, backend) == 0


@pytest.mark.slow
@each_backend
@each_kernel
@each_name
def test_operation_at_224(name, kernels, backend):
    require("augment", backend, torch.uint8)
    wrong = differing(pictures("adversarial", 224), name, "trivialaugment", kernels, backend)
    assert wrong <= (GEOMETRY_LIMIT if name in ranges.GEOMETRIC else 0)


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (3, 3), (24, 40), (17, 9)], ids=str)
@each_kernel
def test_odd_sizes(kernels, size):
    images = torch.randint(0, 256, (4, 3, *size)).byte()
    for name in NAMES:
        assert differing(images, name, "trivialaugment", kernels, "reference") == 0


@pytest.mark.parametrize("size", [(32, 32), (24, 40), (17, 9), (224, 224)], ids=str)
def test_this_machine_s_grids_are_within_rounding_of_the_fused_ones(size):
    """So its pixels differ from ours at ties alone: given a grid, all pixels are equal."""
    height, width = size
    context = ImageContext(height, width, "torchvision")
    for name in ranges.GEOMETRIC:
        for magnitude in signed_magnitudes(name, "trivialaugment", context):
            theta = make_setting(name, magnitude, context).real
            half = torch.tensor([[width * 0.5], [height * 0.5]])
            matrix = (torch.tensor(theta).view(2, 3) * half)[None]
            grids = [
                make(matrix, width, height, width, height) for make in (machine_grid, fused_grid)
            ]
            assert (grids[0] - grids[1]).abs().max() <= 2 * torch.finfo(torch.float32).eps * 4


@each_name
@pytest.mark.parametrize("kernels", ["tensor", "bilinear"])
def test_on_this_machine_s_grids_few_pixels_differ(name, kernels, monkeypatch):
    monkeypatch.setattr(_functional_tensor, "_gen_affine_grid", machine_grid)
    wrong = differing(pictures("adversarial", 32), name, "trivialaugment", kernels, "reference")
    assert wrong <= (TIES_LIMIT if name in ranges.GEOMETRIC else 0)


@pytest.mark.parametrize("degrees", [90.0, -90.0, 180.0, -180.0, 270.0, 0.0, -0.0, 360.0, 45.0])
@pytest.mark.parametrize("kernels", ["pil", "tensor"])
@pytest.mark.parametrize("size", [(32, 32), (33, 33), (20, 32), (224, 224)], ids=str)
def test_right_angles(degrees, kernels, size):
    """Pillow transposes at right angles (bin 20 of TrivialAugment's is 90 degrees)."""
    assert 90.0 in ranges.TRIVIALAUGMENT.magnitudes("Rotate", ImageContext(32, 32))
    images = torch.randint(0, 256, (3, 3, *size)).byte()
    setting = stack_settings(
        [make_setting("Rotate", degrees, ImageContext(*size, KERNELS[kernels][0]))]
    )
    result = augment(images, every_row(setting, 3), dtype=torch.uint8)
    assert torch.equal(result, expected(images, "Rotate", degrees, kernels))


def test_autocontrast_divides_once_in_pil_and_twice_in_torchvision():
    """255 / range against (1 / range) * 255: some pixel shows each rounding."""
    images = torch.arange(256).byte().view(1, 1, 16, 16).expand(254, 3, -1, -1).clone()
    images = torch.minimum(images, torch.arange(2, 256).byte().view(-1, 1, 1, 1))
    both = []
    for kernels in ("pil", "tensor"):
        settings = stack_settings(
            [make_setting("AutoContrast", 0.0, ImageContext(16, 16, KERNELS[kernels][0]))]
        )
        both.append(augment(images, every_row(settings, 254), dtype=torch.uint8))
        assert torch.equal(both[-1], expected(images, "AutoContrast", 0.0, kernels))
    assert not torch.equal(*both)


@pytest.mark.parametrize("kernels", ["pil", "tensor"])
def test_solarize_at_its_thresholds(kernels):
    """Pillow compares in float64, torchvision in float32; equality inverts."""
    images = torch.arange(256).byte().view(1, 1, 16, 16).expand(1, 3, -1, -1)
    context = ImageContext(16, 16, KERNELS[kernels][0])
    for threshold in (0.0, 8.5, 93.5, 127.0, 170.00000001, 255.0):
        settings = stack_settings([make_setting("Solarize", threshold, context)])
        result = augment(images, every_row(settings, 1), dtype=torch.uint8)
        assert torch.equal(result, expected(images, "Solarize", threshold, kernels))


def test_translations_are_cut_to_whole_pixels():
    """A magnitude of 4.95 moves 4 pixels, and of -4.95 too."""
    images = pictures("adversarial", 32)
    for magnitude in (4.95, -4.95, 0.9, -0.9):
        for kernels in KERNELS:
            context = ImageContext(32, 32, *KERNELS[kernels])
            settings = stack_settings([make_setting("TranslateX", magnitude, context)])
            result = augment(images, every_row(settings, 8), dtype=torch.uint8)
            assert torch.equal(result, expected(images, "TranslateX", magnitude, kernels))


@pytest.mark.parametrize("name", POLICIES)
def test_grids_of_all_policies_fit_their_types(name):
    """Fixed-point maps stay below 2^15 pixels, where Pillow's are exact."""
    settings = policy(name, 224, 224).settings
    corners = torch.tensor(list(itertools.product((0, 223), (0, 223))))
    maps = settings.integer.long()
    reach = maps[:, [0, 3]][:, None] * corners[:, :1] + maps[:, [1, 4]][:, None] * corners[:, 1:]
    assert (reach + maps[:, [2, 5]][:, None]).abs().max() < 2**31
