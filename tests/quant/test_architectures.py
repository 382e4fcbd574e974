"""Networks that are in use, one or two for each type of layer and each method: they learn."""

import pytest
import torch
from torch import nn
from torchvision import models

import daqakd
from daqakd.quant.base import Quantizer
from daqakd.quant.layers import QuantLayer


class M5(nn.Module):
    """Four convolutions over a raw waveform, as [Dai et al. 2017] name it, with few channels."""

    def __init__(self) -> None:
        super().__init__()
        sides = ((1, 8, 40, 8), (8, 8, 3, 1), (8, 16, 3, 1))
        self.stages = nn.Sequential(*map(self._stage, sides))
        self.fc = nn.Linear(16, 4)

    @staticmethod
    def _stage(sides):
        inputs, outputs, width, stride = sides
        conv = nn.Conv1d(inputs, outputs, width, stride)
        return nn.Sequential(conv, nn.BatchNorm1d(outputs), nn.ReLU(), nn.MaxPool1d(2))

    def forward(self, x):
        return self.fc(self.stages(x).mean(2))


class UNet(nn.Module):
    """Down by strided convolutions, up by transposed ones, with what was seen on the way."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.down = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.Sequential(nn.ConvTranspose2d(16, 8, 2, 2), nn.BatchNorm2d(8), nn.ReLU())
        self.last = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        near = self.first(x)
        return self.last(torch.cat([self.up(self.down(near)), near], 1)).mean((2, 3))


class Bag(nn.Module):
    """A text classifier: the mean of what words are looked up to."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.hidden, self.fc = nn.Embedding(50, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def forward(self, x):
        return self.fc(nn.functional.gelu(self.hidden(self.words(x).mean(1))))


def vit():
    model = models.VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=4)
    nn.init.normal_(model.heads.head.weight, std=0.1)  # zero as built
    return model


def r3d():
    return models.video.r3d_18(num_classes=4)


NETWORKS = {
    "audio": (M5, (8, 1, 400)),
    "video": (r3d, (2, 3, 4, 16, 16)),
    "unet": (UNet, (8, 3, 16, 16)),
    "text": (Bag, (8, 12)),
    "vit": (vit, (8, 3, 16, 16)),
    "mobilenet_v3": (lambda: models.mobilenet_v3_small(num_classes=4), (8, 3, 32, 32)),
}
METHODS: list[tuple[str, dict]] = [
    ("lsq", {}),
    ("lsq", {"per_channel": True}),
    ("lsqplus", {}),
    ("pact", {}),
]
METHODS += [("dorefa", {}), ("ewgs", {"delta": 0.001}), ("seq", {}), ("seq", {"weight_levels": 3})]


def batch_of(shape, words):
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=draw)
    x = torch.randint(0, 50, shape, generator=draw) if words else x
    return x, torch.arange(shape[0]) % 4


@pytest.mark.parametrize(("method", "options"), METHODS, ids=lambda v: str(v).strip("{}"))
@pytest.mark.parametrize("name", NETWORKS)
def test_it_learns(name, method, options):
    """Ten steps on one batch lower the loss, and move what every quantizer learns."""
    if name == "video" and method != "lsq":
        pytest.skip("33 million parameters: once is enough")
    torch.manual_seed(0)
    make, shape = NETWORKS[name]
    x, labels = batch_of(shape, name == "text")
    model = daqakd.quantize(
        make(), weight_bits=4, act_bits=4, embedding_bits=4, method=method, **options
    )
    daqakd.calibrate(model, [x])
    assert sum(isinstance(m, QuantLayer) for m in model.modules()) >= 3
    learned = {
        f"{n}.{key}": value
        for n, m in model.named_modules()
        if isinstance(m, Quantizer)
        for key, value in m.named_parameters()
    }
    before = {key: value.detach().clone() for key, value in learned.items()}
    optimizer = torch.optim.Adam(daqakd.param_groups(model, lr=1e-3, weight_decay=0.0))
    losses = []
    for _ in range(3 if name == "video" else 10):
        loss = nn.functional.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(value.grad is not None for value in learned.values())
    # nothing may be clipped by PACT's alpha, which then stays
    fixed = [k for k, v in learned.items() if torch.equal(v, before[k]) and "alpha" not in k]
    assert not fixed, fixed
