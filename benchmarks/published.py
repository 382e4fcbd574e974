"""The ranking as the paper's public code runs it, with torchvision's loader, to time beside ours.

[DAQAKD] takes 22 augmented passes over the training images for every strategy: ten for the groups
of the standard deviation, each over an augmented and a standard view, one for the classes' mean
predictions and one for CMI. The images are not shuffled, a batch has 100.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from daqakd.data import Dataset

from .bench_training import Pictures

BATCH, STD_EPOCHS, STEPS_OF_GROUP = 100, 10, 5
MANY = 2000  # images that are worth starting processes for


def transforms_of(strategy: str) -> list[nn.Module]:
    """Return torchvision's transform of a strategy, none for ``minimal``."""
    policies = {
        "minimal": list,
        "trivialaugment": lambda: [v2.TrivialAugmentWide()],
        "randaugment": lambda: [v2.RandAugment()],
        "augmix": lambda: [v2.AugMix()],
        "autoaugment-cifar": lambda: [v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10)],
        "autoaugment-imagenet": lambda: [v2.AutoAugment(v2.AutoAugmentPolicy.IMAGENET)],
    }
    return policies[strategy]()


@dataclass(frozen=True)
class Passes:
    """A teacher's predictions of a strategy's images.

    Args:
        teacher: in evaluation mode.
        data: all of whose training images are seen.
        strategy: a key of :func:`transforms_of`.
    """

    teacher: nn.Module
    data: Dataset
    strategy: str

    @torch.no_grad()
    def predictions(self, strategy: str) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield log-probabilities [B, C] and labels [B] of one pass."""
        pictures = Pictures(self.data, *transforms_of(strategy))
        device = next(self.teacher.parameters()).device
        workers = torch.get_num_threads() if len(pictures) >= MANY else 0
        for x, y in DataLoader(pictures, BATCH, num_workers=workers):
            yield self.teacher(x.to(device)).log_softmax(1), y.to(device)

    def centroids(self) -> Tensor:
        """Return every class's mean prediction, [C, C]."""
        classes = self.data.num_classes
        device = next(self.teacher.parameters()).device
        sums, counts = torch.zeros(classes, classes, device=device), torch.zeros(classes)
        for log_p, y in self.predictions(self.strategy):
            sums.index_add_(0, y, log_p.exp())
            counts += torch.bincount(y.cpu(), minlength=classes)
        return sums / counts.to(device)[:, None]

    def cmi(self, centroids: Tensor) -> float:
        """Return the mean over images of KL(prediction | its class's mean prediction)."""
        total, count = 0.0, 0
        for log_p, y in self.predictions(self.strategy):
            p, apart = log_p.exp(), log_p - centroids[y].log()
            total += float(torch.where(p > 0, p * apart, 0.0).sum())
            count += len(y)
        return total / count

    def deviation(self, epochs: int = STD_EPOCHS) -> float:
        """Return the deviation of mean predictions over groups of steps, both views in each."""
        means = []
        for _ in range(epochs):
            views = self.predictions(self.strategy), self.predictions("minimal")
            steps = [torch.cat([a.exp(), b.exp()]) for (a, _), (b, _) in zip(*views, strict=True)]
            starts = range(0, len(steps), STEPS_OF_GROUP)
            means += [torch.cat(steps[start : start + STEPS_OF_GROUP]).mean(0) for start in starts]
        return float(torch.stack(means).std(0).mean())


def score(passes: Passes) -> float:
    """Return PAC - CMI by two passes."""
    centroids = passes.centroids()
    pac = -float(centroids.diagonal().log().mean())
    return pac - passes.cmi(centroids)


def published_score(passes: Passes) -> float:
    """Return PAC - CMI by the public code's 22 passes."""
    passes.deviation()
    return score(passes)
