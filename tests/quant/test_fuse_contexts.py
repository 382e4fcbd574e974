"""Fused students where things happen around them: copies, hooks, modes, changes in place."""

import copy
import io
import pickle
import warnings
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

import daqakd
from daqakd.quant.base import ActivationQuantizer
from daqakd.quant.fusion import fusing
from daqakd.quant.fusion.plan import fusion_of
from daqakd.quant.layers import QuantLayer
from daqakd.quant.weight_cache import WeightCache

from ..helpers.fusible import OpCalls, assert_alike, images, quantized, step, student
from ..helpers.small import SlimResNet

CHAINS = 5  # of the model below


def pair(method: str = "lsq", model: nn.Module | None = None) -> tuple[Any, Any]:
    """Return a fused student and the student."""
    torch.manual_seed(0)
    plain = quantized(model or SlimResNet(), method)
    return daqakd.fuse(plain), plain


def chains_run(model: nn.Module) -> int:
    with OpCalls() as calls:
        model(images())
    return len(calls)


def test_deep_copies_are_fused_and_apart():
    fused, plain = pair()
    twin = copy.deepcopy(fused)
    assert type(twin) is type(fused)
    assert chains_run(twin) == CHAINS
    before = copy.deepcopy(fused.state_dict())
    torch.optim.SGD(twin.parameters(), lr=0.1).zero_grad()
    twin(images()).sum().backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.sub_(0.1)
    for name, value in fused.state_dict().items():
        assert torch.equal(value, before[name])
    assert_alike(copy.deepcopy(fused), copy.deepcopy(plain))


def test_pickles_and_whole_files_are_fused():
    fused, plain = pair("pact")
    file = io.BytesIO()
    torch.save(fused, file)
    file.seek(0)
    for twin in (pickle.loads(pickle.dumps(fused)), torch.load(file, weights_only=False)):
        assert isinstance(twin, SlimResNet)
        assert chains_run(twin) == CHAINS
        assert pickle.loads(pickle.dumps(twin)) is not twin
        twin.load_state_dict(plain.state_dict())
        assert_alike(twin, copy.deepcopy(plain))
    fusing.unfuse(fused)
    assert type(fused) is SlimResNet
    assert type(pickle.loads(pickle.dumps(fused))) is SlimResNet


def test_other_copies_are_the_students():
    """A class that copies and pickles in its own way does so still."""

    fused, plain = pair(model=OwnCopies())
    assert copy.deepcopy(fused).copied
    assert isinstance(pickle.loads(pickle.dumps(fused)), OwnCopies)
    assert_alike(fused, plain)


class OwnCopies(SlimResNet):
    copied = False

    def __deepcopy__(self, memo):
        twin = type(self)()
        twin.__dict__ |= copy.deepcopy(self.__dict__, memo)
        twin.copied = True
        return twin

    def __reduce_ex__(self, protocol):
        return OwnCopies, ()


HOOKED = {  # name: the module, and how many chains do not run with hooks on it
    "norm": ("bn1", 1),
    "second norm": ("blocks.1.bn1", 1),
    "layer": ("blocks.0.conv2", 1),
    "quantizer": ("blocks.0.conv2.act_quantizer", 1),
    "container": ("blocks.0", CHAINS),
    "sequence": ("blocks", CHAINS),
    "root": ("", 0),
    "classifier": ("linear", 0),
    "weight quantizer": ("conv1.weight_quantizer", 0),
}
KINDS = {
    "forward": nn.Module.register_forward_hook,
    "pre": nn.Module.register_forward_pre_hook,
    "backward": nn.Module.register_full_backward_hook,
    "backward pre": nn.Module.register_full_backward_pre_hook,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("where", HOOKED)
def test_hooks_added_later_see_what_they_would(where, kind):
    fused, plain = pair()
    name, missing = HOOKED[where]
    seen: list[list[str]] = [[], []]
    handles = []
    for model, shapes in zip((fused, plain), seen, strict=True):

        def hook(module, *args, shapes=shapes):
            for arg in args:
                tensors = arg if isinstance(arg, tuple) else (arg,)
                shapes.extend(f"{type(x).__name__} {getattr(x, 'shape', '')}" for x in tensors)

        handles.append(KINDS[kind](model.get_submodule(name), hook))
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert seen[0] == seen[1]
    assert len(calls) == CHAINS - missing
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert len(told.fused) == CHAINS - missing
    assert missing == 0 or any("hooks on" in why for why in told.whole.values())
    for handle in handles:
        handle.remove()
    assert chains_run(fused) == CHAINS


def test_hooks_on_all_modules():
    fused, plain = pair()
    count = [0]

    def hook(module, args, out):
        count[0] += 1

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        fused(images())
        ours, count[0] = count[0], 0
        plain(images())
    finally:
        handle.remove()
    assert ours == count[0] > 20
    assert chains_run(fused) == CHAINS


def test_hooks_from_before_keep_their_module_whole():
    torch.manual_seed(0)
    plain = quantized(SlimResNet())
    seen: list[str] = []
    for part in (plain.blocks[0], plain.blocks[1].bn2):
        part.register_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    fused = daqakd.fuse(plain)
    assert fusion_of(fused.blocks[0]) is not None, "what is inside is a root of its own"
    with OpCalls() as calls:
        step(fused)
    assert len(calls) == CHAINS - 1
    assert seen == ["BasicBlock", "BatchNorm2d"]
    step(plain)
    assert_alike(fused, plain)
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert told.whole["blocks.0"] == "hooks on it, so that only what is inside is fused"
    assert told.whole["blocks.1.bn2"] == "hooks on it"
    assert "blocks.0.bn1" in told.fused


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


class Changing(nn.Module):
    """Something changes a tensor in place that the chain reads, or that was read of it."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 6, 1)
        self.norm, self.fc, self.where = nn.BatchNorm2d(6), nn.Linear(6, 4), where

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        residual, kept = x * 2, x.relu()
        if self.where == "residual first":
            residual += self.norm(x)
            y = residual.relu() + residual
        else:
            y = self.norm(x)
            if self.where == "input":
                x.mul_(0.5)
            y = y + residual
            if self.where == "residual":
                residual.mul_(0.5)
            y = y.relu()
        if self.where == "activation":
            y.mul_(0.5)
        z = self.conv2(y)
        if self.where == "activation after":
            y.mul_(0.5)
        return self.fc((z + y * kept + residual + x).mean((2, 3)))


WHERE = ("nowhere", "residual first", "input", "residual", "activation", "activation after")


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_changes_in_place(where, mode):
    fused, plain = pair("pact", Changing(where))
    for training in (True, False):
        for model in (fused, plain):
            model.train(training)
        with mode():
            torch.testing.assert_close(fused(images()), plain(images()), rtol=1e-10, atol=1e-12)
    with OpCalls() as calls:
        fused(images())
    assert len(calls) == (where not in ("residual first", "input", "residual"))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode):
    fused, plain = pair()
    for training in (True, False):
        for model in (fused, plain):
            model.train(training)
        with mode():
            x = images()
            with OpCalls() as calls:
                y = fused(x)
            torch.testing.assert_close(y, plain(x), rtol=1e-10, atol=1e-12)
        assert len(calls) == CHAINS


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


def replaced_norm(model: Any) -> None:
    model.bn1 = nn.Identity()


def replaced_layer(model: Any) -> None:
    torch.manual_seed(1)
    model.blocks[0].conv2 = nn.Conv2d(4, 4, 3, 1, 1).double()


def replaced_block(model: Any) -> None:
    model.blocks[1] = nn.AdaptiveAvgPool2d(4)
    model.linear = nn.Linear(4, 10).double()


def one_block_more(model: Any) -> None:
    model.blocks.append(nn.AvgPool2d(2))


def no_quantizer(model: Any) -> None:
    model.blocks[0].conv2.act_quantizer = None


def own_forward(model: Any) -> None:
    model.blocks[0].forward = nn.Identity()


def parametrized(model: Any) -> None:
    parametrize.register_parametrization(model.blocks[0].bn1, "weight", nn.Softplus())


CHANGES = {  # how many chains do not run after it
    replaced_norm: 1,
    replaced_layer: 1,
    replaced_block: CHAINS,
    one_block_more: CHAINS,
    no_quantizer: 1,
    own_forward: CHAINS,
    parametrized: 1,
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_modules_replaced_later_are_what_runs(change):
    fused, plain = pair()
    for model in (fused, plain):
        WeightCache.detach(model)
        torch.manual_seed(4)
        change(model)
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == CHAINS - CHANGES[change]
    assert daqakd.summary(fused).fusion is not None


def test_a_checkpoint_around_all():
    fused, plain = pair()
    outcome = []
    for model in (fused, plain):
        x = images().requires_grad_()
        y = checkpoint(model, x, use_reentrant=False)
        outcome.append(torch.autograd.grad(y.square().mean(), [x, *model.parameters()]))
    for got, wanted in zip(*outcome, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-7, atol=1e-10)


def test_compilers_and_exporters_read_the_members():
    fused, plain = pair()
    fused.eval(), plain.eval()
    WeightCache.detach(fused)
    compiled = torch.compile(fused, backend="eager", fullgraph=True)
    with OpCalls() as calls, torch.no_grad():
        torch.testing.assert_close(compiled(images()), plain(images()), rtol=1e-9, atol=1e-9)
        program = torch.export.export(fused, (images(),)).module()
        torch.testing.assert_close(program(images()), plain(images()), rtol=1e-9, atol=1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch: it is old, and quantizers branch
            traced = torch.jit.trace(fused, images(), check_trace=False)
        torch.testing.assert_close(traced(images()), plain(images()), rtol=1e-9, atol=1e-9)
    assert len(calls) == 0


def test_functional_calls_use_what_they_are_given():
    fused, plain = pair()
    state = {k: 1.01 * v if v.dim() else v.clone() for k, v in plain.state_dict().items()}
    given = {k: v.clone() for k, v in state.items()}
    with OpCalls() as calls:
        got = functional_call(fused, given, images())
    torch.testing.assert_close(got, functional_call(plain, state, images()))
    assert len(calls) == CHAINS
    assert_alike(fused, plain)
    for name, value in state.items():
        torch.testing.assert_close(given[name], value)


def test_quantizers_that_came_to_differ():
    """They were alike as the model was fused: one op for both."""
    fused, plain = (daqakd.fuse(m) if i == 0 else m for i, m in enumerate(two_of("dorefa")))
    assert_alike(fused, plain)
    for model in (fused, plain):
        layer: QuantLayer = model.layer2[0].downsample[0]
        assert isinstance(layer.act_quantizer, ActivationQuantizer)
        layer.act_quantizer.bits = 2
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == 8


def two_of(method: str) -> tuple[Any, Any]:
    return student("resnet10", method), student("resnet10", method)


@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_inputs_that_are_kept_as_codes(method):
    torch.manual_seed(0)
    plain = quantized(SlimResNet(), method, save="codes")
    fused = daqakd.fuse(plain)
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert len(calls) == CHAINS


def test_second_derivatives_are_refused():
    fused, _ = pair()
    x = images().requires_grad_()
    (grad,) = torch.autograd.grad(fused(x).square().mean(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="cannot differentiate twice"):
        grad.sum().backward()


def test_in_place_within_a_block():
    fused, plain = pair()
    kind = type(plain)
    with fusing.fused(plain):
        assert chains_run(plain) == CHAINS
    assert type(plain) is kind
    with pytest.raises(ZeroDivisionError), fusing.fused(plain):
        raise ZeroDivisionError
    assert type(plain) is kind
    with fusing.fused(fused, wanted=False):
        assert chains_run(fused) == 0
    assert chains_run(fused) == CHAINS


def test_arguments_with_defaults():
    fused, plain = pair(model=Options())
    assert chains_run(fused) == CHAINS
    for call in (partial(_called, twice=True), partial(_called, True), _named):
        with OpCalls() as calls:
            got = call(fused)
        torch.testing.assert_close(got, call(plain))
        assert len(calls) == (CHAINS if call is _named else 0)


def _called(*args, **kwargs) -> Tensor:
    *options, model = args
    return model(images(), *options, **kwargs)


def _named(model: nn.Module) -> Tensor:
    return model(pixels=images())


class Options(SlimResNet):
    def forward(self, pixels, twice: bool = False):
        x = super().forward(pixels)
        return 2 * x if twice else x
