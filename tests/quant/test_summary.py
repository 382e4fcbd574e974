"""What ``summary`` counts and lists."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import daqakd
from daqakd.models import BUILDERS, build

from ..helpers.small import SmallNet
from .test_quant import images


def rows(student: nn.Module) -> dict[str, daqakd.quant.layer_rows.LayerSummary]:
    return {row.name: row for row in daqakd.summary(student).layers}


class Windows(nn.Module):
    """Windows of tokens folded into the batch, a layer used three times, one in full precision."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4, groups=1)
        self.qkv, self.twice, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x)  # [B, 8, 4, 4]
        x = x.unflatten(2, (2, 2)).unflatten(4, (2, 2)).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, 8)
        x = self.qkv(x)[..., :8]
        x = self.twice(self.twice(self.twice(x)))
        return self.head(x.reshape(-1, 16, 8).mean(1))


def test_operations_are_those_that_torch_counts():
    for batch in (1, 3):
        for options in ({"act_bits": 4}, {"act_bits": None}, {"act_bits": 4, "exclude": "qkv"}):
            model, x = Windows(), torch.randn(batch, 3, 16, 16)
            with FlopCounterMode(display=False) as counter:
                model(x)
            student = daqakd.quantize(model, weight_bits=2, **options)
            found = daqakd.summary(daqakd.calibrate(student, [x, x]))
            assert found.macs * 2 * batch == counter.get_total_flops()


class Attention(nn.Module):
    """Tokens [B, L, C]; the products of activations belong to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(8, 8), nn.Linear(8, 8, bias=False), nn.Linear(8, 6)
        self.out = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        weights = (self.q(x) @ self.k(x).transpose(1, 2)).softmax(2)
        out: Tensor = self.out(weights @ self.v(x))
        return out


def convolutions() -> nn.Module:
    """Grouped, dilated, transposed, of one and three dimensions."""
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, 2, groups=3),
        nn.Conv2d(12, 12, 3, padding=2, dilation=2, groups=12),
        nn.ConvTranspose2d(12, 8, 4, 2, 1, groups=2),
        nn.Flatten(2),
        nn.Conv1d(8, 4, 5, groups=4),
        nn.ConvTranspose1d(4, 6, 3, stride=2),
        nn.AdaptiveAvgPool1d(24),
        nn.Unflatten(2, (2, 4, 3)),
        nn.Conv3d(6, 2, (1, 3, 2)),
    )


def tokens() -> nn.Module:
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 3))


def torchvisions(name: str) -> nn.Module:
    model: nn.Module = pytest.importorskip("torchvision").models.get_model(name)
    return model


OTHERS = ("shufflenet_v2_x0_5", "efficientnet_b0", "squeezenet1_0", "regnet_x_400mf")
MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "convolutions": (convolutions, (3, 15, 15)),
    "attention": (Attention, (7, 8)),
    "tokens": (tokens, (4, 5, 8)),
    **{name: (partial(build, name, 10), (3, 32, 32)) for name in BUILDERS},
    **{name: (partial(torchvisions, name), (3, 64, 64)) for name in OTHERS},
}


@pytest.mark.parametrize("name", MODELS)
def test_operations_of_whole_models_are_those_that_torch_counts(name):
    make, shape = MODELS[name]
    model, x = make().eval(), torch.randn(2, *shape)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(x)
    counts = {str(op): count for op, count in counter.get_flop_counts()["Global"].items()}
    student = daqakd.quantize(model, weight_bits=4, act_bits=None)
    found = daqakd.summary(daqakd.calibrate(student, x))
    assert found.macs * 2 * len(x) == sum(counts.values()) - counts.get("aten.bmm", 0)
    assert found.uncounted == []


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.gru, self.head = nn.Embedding(5, 4), nn.GRU(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.gru(self.embed(x))[0])
        return out


def test_operations_that_were_not_seen_are_told():
    student = daqakd.quantize(Recurrent(), weight_bits=2, act_bits=2)
    assert daqakd.summary(student).uncounted == []
    found = daqakd.summary(daqakd.calibrate(student, torch.zeros(2, 3, dtype=torch.long)))
    assert found.uncounted == ["gru.weight_ih_l0", "gru.weight_hh_l0"]
    assert "without the operations of gru.weight_ih_l0, gru.weight_hh_l0, which" in str(found)


def test_layers_in_full_precision_have_their_operations():
    student = daqakd.quantize(Windows(), weight_bits=2, act_bits=4, exclude=["qkv"])
    row = rows(daqakd.calibrate(student, images()))["qkv"]
    assert (row.macs, row.bit_ops) == (16 * 8 * 24, 16 * 8 * 24 * 32 * 32)
    assert row.note == "not quantized: left in full precision"


class Mixed(nn.Module):
    """Weights of many kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 7, 4))
        self.embed = nn.Embedding(9, 4)
        self.fc, self.mid = nn.Linear(4, 4), nn.Linear(4, 4)
        self.up = nn.ConvTranspose2d(4, 2, 3)
        self.one = nn.Conv1d(4, 4, 3)
        self.attention = nn.MultiheadAttention(4, 2)
        self.norm = nn.LayerNorm(4)
        self.unembed = nn.Linear(4, 9, bias=False)
        self.unembed.weight = self.embed.weight
        self.also = nn.Embedding(9, 4)
        self.also.weight = self.embed.weight


def test_whatever_has_weights_is_listed():
    found = rows(daqakd.quantize(Mixed(), weight_bits=2, act_bits=None))
    assert {n: r.bytes for n, r in found.items()} == {
        "position": 112,
        "embed": 144,
        "fc": 16,  # the first layer: 8 bits
        "mid": 4,
        "up": 18,
        "one": 12,
        "attention.in_proj": 12,
        "attention.out_proj": 4,
        "unembed": 36,
        "also": 0,
    }
    assert found["embed"].note == "not quantized: left in full precision; see embedding_bits="
    assert (found["up"].kind, found["up"].note) == ("ConvTranspose2d", "")
    assert "that of embed" in found["also"].note
    assert daqakd.summary(daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2)).layers[0].name


class Crossed(nn.Module):
    """The layer registered last is not the last to run."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.mid, self.stem = nn.Linear(4, 2), nn.Linear(4, 4), nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mid(self.stem(x)))


def test_first_and_last_layer_are_told():
    student = daqakd.quantize(Crossed(), weight_bits=2, act_bits=2)
    line = "first and last layer, by order of registration (8 bits): head, stem"
    assert daqakd.summary(student).first_last == line
    daqakd.calibrate(student, torch.randn(2, 3))
    text = daqakd.summary(student).first_last
    assert text == f"{line}; by order of the calibration pass: stem, head (see overrides=)"
    assert text in str(daqakd.summary(student))
    whole = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2, first_last="fp")
    wanted = "first and last layer, by order of registration (full precision): conv1, fc"
    assert daqakd.summary(daqakd.calibrate(whole, images())).first_last == wanted
    same = daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2, first_last="same")
    assert daqakd.summary(same).first_last == ""
