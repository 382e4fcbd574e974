"""A small model and a small data set, for tests of what is built around them."""

from pathlib import Path

import torch
from PIL import Image
from torch import nn

from daqakd.augment import InputSpec
from daqakd.data.dataset import Dataset, Images, make
from daqakd.models.resnet import BasicBlock

BUILDERS = "tests.helpers.builders"  # of models
RUN: tuple[str, ...] = ("--teacher-epochs", "6", "--epochs", "1", "--strategies", "minimal")
RUN += ("--seed", "1", "--batch-size", "16")


class SmallNet(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self, classes: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, 2, 1)
        self.fc = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.relu(self.bn1(self.conv1(x)))
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


class Colours(nn.Module):
    """Tells the classes by their mean colours."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * x.mean((2, 3))


def small_images(count: int, classes: int = 3, seed: int = 0) -> Images:
    """Images whose mean colour tells the class, with noise."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % classes
    noise = torch.randint(0, 120, (count, 3, 16, 16), generator=generator)
    signal = torch.zeros_like(noise)
    signal[torch.arange(count), labels % 3] = 100
    return Images((noise + signal).to(torch.uint8), labels)


def small_dataset(count: int = 180, classes: int = 3, holdout: float = 0.2) -> Dataset:
    """A data set with training, held-out and test images."""
    return make(
        "small",
        [f"class{y}" for y in range(classes)],
        small_images(count, classes),
        small_images(60, classes, seed=1),
        inputs=InputSpec((0.4, 0.4, 0.4), (0.25, 0.25, 0.25)),
        holdout=holdout,
        seed=0,
    )


def small_net(num_classes: int) -> SmallNet:
    """Build it as ``--model tests.helpers.small:small_net`` does."""
    return SmallNet(num_classes)


def write_images(root: Path, train: int = 240, test: int = 60) -> Path:
    """Write the small images as a folder tree ``train/<class>/*`` and ``test/<class>/*``."""
    for part, count in (("train", train), ("test", test)):
        images = small_images(count, seed=len(part))
        for i, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
            folder = root / part / f"class{label}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
    return root


class SlimResNet(nn.Module):
    """A ResNet small enough for Triton's interpreter: two blocks of 4 and 8 channels."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 4, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(4)
        self.blocks = nn.Sequential(BasicBlock(4, 4, 1), BasicBlock(4, 8, 2))
        self.linear = nn.Linear(8, classes)

    def forward(self, x):
        return self.linear(self.blocks(torch.relu(self.bn1(self.conv1(x)))).mean((2, 3)))
