"""Images that augmentation is tried on: real ones where there are some, and nasty ones."""

import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

DATA = os.environ.get("DAQAKD_DATA")


def to_pil(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())


def from_pil(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)


def adversarial(side: int) -> Tensor:
    """Constant, two-level, black and white, a ramp and noise: uint8 [8, 3, side, side]."""
    generator = torch.Generator().manual_seed(side)

    def noise(high: int) -> Tensor:
        return torch.randint(0, high, (3, side, side), generator=generator)

    ramp = torch.arange(3 * side * side).view(3, side, side) % 256
    flat = [torch.full((3, side, side), level) for level in (0, 93, 255)]
    return torch.stack(
        [*flat, noise(2) * 255, noise(2) * 7 + 100, ramp, noise(256), noise(3)]
    ).byte()


@cache
def real(side: int, count: int) -> Tensor:
    """Return CIFAR-10 test images of all classes, resized where ``side`` is not 32."""
    files = sorted((Path(DATA or "") / "cifar10" / "test").glob("*/*.png"))
    if not DATA or not files:
        pytest.skip("DAQAKD_DATA names no folder with cifar10/")
    chosen = [Image.open(path) for path in files[:: len(files) // count]]
    return torch.stack([from_pil(image.resize((side, side))) for image in chosen])


def pictures(source: str, side: int, count: int = 10) -> Tensor:
    """Return ``"real"`` or ``"adversarial"`` images."""
    return real(side, count) if source == "real" else adversarial(side)
