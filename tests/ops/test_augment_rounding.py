"""The reference rounds a sum of a product twice where a processor's fma rounds once: never seen."""

import pytest
import torch
from torch import Tensor

from daqakd.functional.augment import Settings

from .test_augment_backends import all_settings


def rounded_twice(product: Tensor, term: Tensor) -> Tensor:
    """Add in float64, then round: the reference's fma, whose product is exact."""
    return (product + term).float()


def rounded_once(product: Tensor, term: Tensor) -> Tensor:
    """Add as a processor's fma does: what float64 lost decides a tie."""
    total = product + term
    kept = total - product
    lost = (product - (total - kept)) + (term - kept)
    tie = (total.view(torch.int64) & 0x1FFFFFFF) == 0x10000000
    aside = torch.nextafter(total, lost.sign() * float("inf"))
    return torch.where(tie & (lost != 0), aside, total).float()


def positions(settings: Settings, side: int, add) -> Tensor:
    """Return where output pixels lie by torchvision's maps: float32 ``[n, 2, H, W]``."""
    maps = settings.real[(settings.kind == 4) | (settings.kind == 5)].view(-1, 2, 3, 1, 1)
    place = torch.arange(side) - (side - 1) / 2
    across, down = place * maps[:, :, 0], place[:, None].double() * maps[:, :, 1].double()
    at = add(down, across.double()) + maps[:, :, 2] + 1
    return add(at.double() * (side / 2), torch.tensor(-0.5, dtype=torch.float64))


@pytest.mark.parametrize("side", [32, 33, 64, 224])
def test_no_setting_shows_that_the_reference_rounds_twice(side):
    nearest, bilinear = (all_settings(kernels, side, side) for kernels in ("tensor", "bilinear"))
    once, twice = (positions(nearest, side, add) for add in (rounded_once, rounded_twice))
    assert torch.equal(once.round(), twice.round())
    assert torch.equal(*(positions(bilinear, side, add) for add in (rounded_once, rounded_twice)))


def test_rounding_once_and_twice_differ():
    product, term = torch.tensor([1 + 2**-24, 2**-80], dtype=torch.float64).split(1)
    assert rounded_once(product, term) == 1 + 2**-23
    assert rounded_twice(product, term) == 1
