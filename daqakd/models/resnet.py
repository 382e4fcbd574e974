"""CIFAR ResNets with parameter-free shortcuts (He et al., CVPR 2016, section 4.2, option A)."""

from torch import Tensor, nn
from torch.nn import functional


class Shortcut(nn.Module):
    """Option A: take every second pixel, pad channels with zeros evenly on both sides."""

    def __init__(self, pad: int) -> None:
        super().__init__()
        self.pad = pad

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C + 2 pad, H / 2, W / 2]``."""
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad))


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions with BatchNorm and a shortcut."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        same = stride == 1 and in_channels == width
        self.shortcut = nn.Identity() if same else Shortcut((width - in_channels) // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output after its ReLU."""
        out = functional.relu(self.bn1(self.conv1(x)))
        return functional.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


def _stage(in_channels: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, width, stride)
    return nn.Sequential(first, *(BasicBlock(width, width, 1) for _ in range(blocks - 1)))


class CIFARResNet(nn.Module):
    """ResNet of depth ``6 n + 2`` with widths 16, 32, 64.

    Args:
        blocks: n, blocks per stage.
        num_classes: outputs.
        head_norm: add a BatchNorm1d before the classifier, as DAQAKD's paper does.
    """

    def __init__(self, blocks: int, num_classes: int, head_norm: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.head_norm = nn.BatchNorm1d(64) if head_norm else nn.Identity()
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits ``[B, num_classes]`` for images ``[B, 3, H, W]``."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.linear(self.head_norm(x.mean((2, 3))))
        return logits
