"""What fuse makes of code: branches, modes, side effects, random numbers, names."""

import copy
import random
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import daqakd
from daqakd.quant.fusion.plan import fusion_of

from ..helpers.fusible import OpCalls, assert_alike, images, quantized, step
from ..helpers.small import SlimResNet


class Block(nn.Module):
    """Convolution, BatchNorm, ReLU and another convolution; subclasses do something around it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 1)

    def chain(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv2(self.norm(self.conv1(x)).relu())
        return y

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x)


class Branching(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x) if x.mean() < 1e9 else x


class Counting(Block):
    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.chain(x)


class Keeping(Block):
    """Keeps its output, as taps do."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[str, Tensor] = {}
        self.outputs: list[Tensor] = []
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.chain(x)
        self.keep(x)
        return x

    def keep(self, x: Tensor) -> None:
        self.last = x


class KeepingInDict(Keeping):
    def keep(self, x: Tensor) -> None:
        self.kept["x"] = x


class KeepingInList(Keeping):
    def keep(self, x: Tensor) -> None:
        self.outputs.append(x)


class Dropping(Block):
    """Leaves itself out at random."""

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x) if torch.rand(1).item() < 0.5 else x


class DroppingByPython(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x) if random.random() < 0.5 else x


class Adding(Block):
    """Adds a tensor that it makes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x) + torch.ones(4, 1, 1, dtype=torch.float64)


class Detached(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.chain(x)


class Cast(Block):
    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=True):
            return self.chain(x).double()


class Recomputed(Block):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.chain, x, use_reentrant=False)
        return y


class ByGradMode(Block):
    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x) if torch.is_grad_enabled() else 2 * self.chain(x)


class Setting(Block):
    def forward(self, x: Tensor) -> Tensor:
        x = 1.0 * self.chain(x)
        x[:, 0] = 0
        return x


class Lying(Block):
    def forward(self, *inputs: Tensor) -> Tensor:
        return self.chain(inputs[0])


class Failing(Block):
    """Looks at what a symbolic value does not have."""

    def forward(self, x: Tensor) -> Tensor:
        return self.chain(x).reshape([int(side) for side in x.shape])


class Net(nn.Module):
    def __init__(self, block: type[Block], twice: bool = False) -> None:
        super().__init__()
        self.stem, self.norm, self.block = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), block()
        self.tail = nn.ModuleList([Block(), block() if twice else nn.Identity()])
        self.fc = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(self.norm(self.stem(x)).relu())
        for part in self.tail:
            x = part(x)
        return self.fc(x.mean((2, 3)))


REFUSED = {
    Branching: "control flow",
    Counting: "its forward pass sets calls",
    Keeping: "its forward pass sets last",
    KeepingInDict: "its forward pass sets kept",
    KeepingInList: "its forward pass sets outputs",
    Adding: "it makes a tensor that does not depend on inputs",
    Detached: "their own grad mode",
    Cast: "their own grad mode, autocast",
    Recomputed: "saved-tensor hooks",
    Setting: "does not support item assignment",
    Failing: "",
}
WHOLE = {  # found to be so when all was traced
    Dropping: "random numbers",
    DroppingByPython: "random numbers",
    ByGradMode: "not the same each time",
}


@pytest.mark.parametrize("block", REFUSED, ids=lambda block: block.__name__)
@pytest.mark.parametrize("twice", [False, True])
def test_code_that_cannot_be_traced_stays_and_the_rest_is_fused(block, twice):
    torch.manual_seed(0)
    plain = quantized(Net(block, twice))
    before = copy.deepcopy({n: vars(m) for n, m in plain.named_modules()})
    fused = daqakd.fuse(plain)
    for name, module in fused.named_modules():
        assert vars(module).keys() == before[name].keys()
    with OpCalls() as calls:
        step(fused)
    step(plain)
    assert_alike(fused, plain)
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert told.whole["block"].startswith("its code cannot be traced: ")
    assert REFUSED[block] in told.whole["block"]
    assert ("tail.1" in told.whole) == twice
    assert len(calls) == 2, "the stem's and the plain block's"


@pytest.mark.parametrize("block", WHOLE, ids=lambda block: block.__name__)
def test_code_that_is_not_the_same_each_time(block):
    torch.manual_seed(0)
    plain = quantized(Net(block), exclude=["block.*"])
    fused = daqakd.fuse(plain)
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert fusion_of(fused) is not None
    for seed in range(4):
        outcome = []
        for model in (fused, plain):
            torch.manual_seed(seed)
            random.seed(seed)
            outcome.append(model(images()))
        torch.testing.assert_close(*outcome)


@pytest.mark.parametrize("block", WHOLE, ids=lambda block: block.__name__)
def test_random_code_around_quantized_layers(block):
    torch.manual_seed(0)
    model = Net(block)
    plain = daqakd.quantize(model.double(), weight_bits=4, act_bits=4)
    random.seed(0)
    daqakd.calibrate(plain, [images(seed) for seed in range(8)])
    drawn = torch.get_rng_state(), random.getstate()
    fused = daqakd.fuse(plain)
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert WHOLE[block] in told.whole[""]
    assert set(told.fused) == {"tail.0.norm"} | ({"block.norm"} & set(told.fused))
    for seed in range(4):
        outcome = []
        for student in (fused, plain):
            torch.manual_seed(seed)
            random.seed(seed)
            outcome.append(student(images()))
        torch.testing.assert_close(*outcome)


def test_a_forward_without_fixed_arguments():
    torch.manual_seed(0)
    plain = quantized(nn.Sequential(nn.Conv2d(3, 4, 1), Lying(), nn.Flatten(), nn.Linear(4096, 2)))
    assert_alike(daqakd.fuse(plain), plain)
    alone = daqakd.fuse(plain[1])
    told = daqakd.summary(alone).fusion
    assert told is not None
    assert "takes * or keyword-only arguments" in told.whole[""]


class Dropout(SlimResNet):
    """Other code in training than in evaluation."""

    def forward(self, x):
        x = self.blocks(torch.relu(self.bn1(self.conv1(x))))
        x = nn.functional.dropout(x, 0.5, self.training)
        return self.linear(x.mean((2, 3)) if self.training else x.amax((2, 3)))


def test_training_and_evaluation_have_code_of_their_own():
    torch.manual_seed(0)
    plain = quantized(Dropout())
    fused = daqakd.fuse(plain)
    for training in (True, False, True):
        for model in (plain, fused):
            model.train(training)
        with OpCalls() as calls:
            assert_alike(fused, plain)
        assert len(calls) == 5
    for model in (plain, fused):
        model.train().blocks[0].eval()  # only its own code could tell
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == 0
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert told.whole[""] == "blocks.0: in another mode than the whole"


def test_modes_stay_as_they_were():
    torch.manual_seed(0)
    plain = quantized(Dropout())
    plain.blocks[1].eval()
    modes = [m.training for m in plain.modules()]
    assert [m.training for m in daqakd.fuse(plain).modules()] == modes


class Reasons(nn.Module):
    """Norms that stay, each for a reason of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)
        self.silu, self.act = nn.BatchNorm2d(4), nn.SiLU()
        self.twice, self.several, self.own = nn.BatchNorm2d(4), nn.BatchNorm2d(4), OwnNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.silu(self.conv(x)))
        x = self.twice(x).relu() + self.twice(2 * x).relu()
        x = self.several(x)
        x = x.tanh() + x.sigmoid()
        return self.fc(self.own(x).relu().mean((2, 3)))


class OwnNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)


def test_what_is_not_fused_is_told_with_the_reason():
    torch.manual_seed(0)
    plain = quantized(Reasons())
    fused = daqakd.fuse(plain)
    assert_alike(fused, plain)
    found = daqakd.summary(fused)
    assert found.fusion is not None
    assert found.fusion.whole == {
        "silu": "SiLU cannot be fused with it",
        "twice": "it is called more than once",
        "several": "several consumers, none of which quantizes it: tanh, sigmoid cannot be fused"
        " with it",
        "own": "OwnNorm is not exactly BatchNorm1d, BatchNorm2d or BatchNorm3d",
        "conv": "no BatchNorm right before it, but the model's input",
        "fc": "no BatchNorm right before it, but mean",
    }
    assert "silu: not fused: SiLU cannot be fused with it" in str(found)
    assert daqakd.summary(plain).fusion is None
    assert "fused" not in str(daqakd.summary(plain))


def test_the_text_of_a_summary():
    torch.manual_seed(0)
    text = str(daqakd.summary(daqakd.fuse(quantized(SlimResNet()))))
    assert "fused: 5 of 5 BatchNorms with what follows" in text
    assert "bn1: fused with relu + lsq of blocks.0.conv1" in text
    assert "blocks.0.bn2: fused with the residual + relu + lsq of blocks.1.conv1" in text


class Aliased(nn.Module):
    """An operand of ``+=`` that has another name, and a number that is no tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        kept, count = x, x.shape[1]
        channels = count
        count *= 2
        x += 1
        x = self.norm(x).relu() + kept / count
        return self.fc((x * channels).mean((2, 3)))


def test_changes_in_place_are_no_additions():
    torch.manual_seed(0)
    plain = quantized(Aliased())
    assert_alike(daqakd.fuse(plain), plain)
