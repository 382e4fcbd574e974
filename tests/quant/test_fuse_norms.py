"""Fused students with norms of every kind, setting and spelling."""

import pytest
import torch
from torch import Tensor, nn

import daqakd

from ..helpers.fusible import CHAINS, OpCalls, assert_alike, pair, step
from ..helpers.small import SlimResNet


def test_synchronised_norms_run_themselves():
    fused, plain = pair()
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(fused).eval()
    with OpCalls() as calls:
        assert_alike(converted, plain.eval())
    assert len(calls) == 0
    told = daqakd.summary(converted).fusion
    assert told is not None
    assert "SyncBatchNorm is not exactly" in told.whole["bn1"]
    refused = daqakd.summary(daqakd.fuse(converted)).fusion
    assert refused is not None
    assert not refused.fused
    assert "SyncBatchNorm is not exactly" in refused.whole["blocks.0.bn2"]


NORMS = {
    "cumulative": {"momentum": None},
    "momentum": {"momentum": 0.7},
    "plain": {"affine": False},
    "untracked": {"track_running_stats": False},
    "eps": {"eps": 0.5},
    "all": {"affine": False, "track_running_stats": False, "momentum": None},
}


@pytest.mark.parametrize("options", NORMS.values(), ids=NORMS)
def test_settings_of_norms(options):
    model = SlimResNet()
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            parent, _, child = name.rpartition(".")
            made = nn.BatchNorm2d(module.num_features, **options)
            setattr(model.get_submodule(parent), child, made)
    fused, plain = pair(model=model)
    for _ in range(3):
        assert_alike(fused, plain)
    with OpCalls() as calls:
        assert_alike(fused.eval(), plain.eval())
    assert len(calls) == CHAINS


def test_frozen_norms_in_training():
    fused, plain = pair()
    for model in (fused, plain):
        model.blocks[0].bn1.eval()
        model.bn1.requires_grad_(False)
        model.blocks[1].bn2.track_running_stats = False
    for model in (fused, plain):
        with OpCalls() as calls, pytest.raises(RuntimeError, match="not require grad"):
            step(model)
        model.bn1.requires_grad_(True)
        assert len(calls) == (0 if model is plain else CHAINS)
    assert_alike(fused, plain)


class Volumes(nn.Module):
    """Norms of one and three dimensions, functional and in-place forms of ReLU and of sums."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.norm3d, self.norm1d, self.last = (
            nn.BatchNorm3d(6),
            nn.BatchNorm1d(6),
            nn.BatchNorm1d(6),
        )
        self.norm2d, self.six = nn.BatchNorm2d(6), nn.Hardtanh(0, 6)
        self.fc1, self.fc2 = nn.Linear(6, 6), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.relu6(self.norm3d(self.conv1(x).unsqueeze(2))).squeeze(2)
        y = self.norm2d(self.conv2(x))
        y += x
        x = nn.functional.relu(y, inplace=True).flatten(2)
        x = torch.add(x.flip(2), self.norm1d(x)).relu_().mean(2)
        return self.fc2(self.six(self.last(self.fc1(x)).add(x)))


@pytest.mark.parametrize("method", ["lsq", "ewgs"])
def test_other_norms_and_spellings(method):
    fused, plain = pair(method, Volumes())
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert [call["activation"] for call in calls.made] == ["relu6", "relu", "relu", "relu6"]
    assert [call["residual"] is None for call in calls.made] == [True, False, False, False]
    assert calls.made[3]["method"] == method


class NormAndAct(nn.BatchNorm2d):
    """Norm, dropout and activation in one module, as timm has them."""

    def __init__(self, width: int, act: nn.Module) -> None:
        super().__init__(width)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x: Tensor) -> Tensor:
        torch._assert(x.ndim == 4, f"expected 4D input (got {x.ndim}D input)")
        rate = 0.0 if self.momentum is None else self.momentum
        if self.training and self.track_running_stats and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                rate = 1.0 / float(self.num_batches_tracked)
        batch = self.training or (self.running_mean is None and self.running_var is None)
        tracked = not self.training or self.track_running_stats
        statistics = (self.running_mean, self.running_var) if tracked else (None, None)
        x = nn.functional.batch_norm(x, *statistics, self.weight, self.bias, batch, rate, self.eps)
        return self.act(self.drop(x))


def norms_and_acts(*acts: nn.Module) -> nn.Module:
    layers = [(nn.Conv2d(4 if i else 3, 4, 1), NormAndAct(4, act)) for i, act in enumerate(acts)]
    flat = [layer for pair in layers for layer in pair]
    return nn.Sequential(*flat, nn.Flatten(), nn.Linear(4096, 2))


def test_norms_that_call_the_function_in_code_of_their_own():
    acts = nn.ReLU(inplace=True), nn.ReLU6(), nn.SiLU(), nn.Identity(), nn.ReLU()
    fused, plain = pair("pact", norms_and_acts(*acts))
    for training in (True, False, True):
        for model in (fused, plain):
            model.train(training)
        with OpCalls() as calls:
            assert_alike(fused, plain)
        kinds = [(call["activation"], call.get("method")) for call in calls.made]
        quantized = ("relu", "pact"), ("relu6", "pact"), ("none", "pact")
        assert kinds == [*quantized, ("relu", None)]
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert list(told.fused) == ["1", "3", "7", "9"]
    assert told.whole["5"] == "SiLU cannot be fused with it"
    fused[1].eval(), plain[1].eval()
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == 0, "the mode of one of these is in the code"


def test_such_norms_by_the_mean_of_all_batches_are_left_alone():
    model = norms_and_acts(nn.ReLU(), nn.ReLU())
    model[1].momentum = None
    fused, plain = pair(model=model)
    for _ in range(2):
        assert_alike(fused, plain)
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert not told.fused
    assert "NormAndAct is not exactly" in told.whole["1"]


def test_one_value_per_channel_is_torchs_error():
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.norm, self.b = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.norm(self.a(x)).relu())

    torch.manual_seed(0)
    made = daqakd.quantize(Head(), weight_bits=4, act_bits=4)
    fused = daqakd.fuse(daqakd.calibrate(made, torch.randn(5, 4)))
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused.train()(torch.randn(1, 4))
    assert fused.eval()(torch.randn(1, 4)).shape == (1, 2)
    assert fused(torch.randn(0, 4)).shape == (0, 2)
