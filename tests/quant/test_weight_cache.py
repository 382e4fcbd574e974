"""The weight cache: one call for all weights, with the results of one call each."""

import copy
import pickle
from collections import Counter

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

import daqakd
from daqakd.backends import table
from daqakd.quant.weight_cache import WeightCache

from ..helpers import cases
from ..helpers.small import SmallNet

METHODS = ("lsq", "dorefa", "ewgs")
each_method = pytest.mark.parametrize("method", METHODS)
MANY = {"lsq": "lsq_many", "dorefa": "dorefa_weight_many", "ewgs": "ewgs_many"}


@pytest.fixture(autouse=True)
def _native():
    for op in MANY.values():
        cases.require(op, "native")


class Calls(TorchDispatchMode):
    """Counts the calls of this project's ops by name."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "daqakd":
            self.of[func.name().removeprefix("daqakd::").split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def student(method: str = "lsq", model: nn.Module | None = None, **options) -> nn.Module:
    """Return a student whose activations stay whole unless ``act_bits`` is given."""
    torch.manual_seed(0)
    options = {"weight_bits": 3, "act_bits": None, "delta": 0.1} | options
    made = daqakd.quantize(model or SmallNet(), method=method, **options)
    daqakd.calibrate(made, images())
    return made.train()


def without_cache(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    WeightCache.detach(model)
    return model


def step(model: nn.Module, x: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor | None]]:
    model.zero_grad()
    y = model(images() if x is None else x)
    y.square().mean().backward()
    return y.detach(), {n: p.grad for n, p in model.named_parameters()}


def assert_same_step(model: nn.Module, other: nn.Module) -> None:
    (y, grads), (y2, grads2) = step(model), step(other)
    assert torch.equal(y, y2)
    assert grads.keys() == grads2.keys()
    for name, grad in grads.items():
        other_grad = grads2[name]
        if grad is None or other_grad is None:
            assert grad is other_grad is None, name
        else:
            assert torch.equal(grad, other_grad), name


@each_method
@pytest.mark.parametrize("per_channel", [False, True])
def test_one_call_and_the_same_bits(method, per_channel):
    model = student(method, per_channel=per_channel)
    with Calls() as calls:
        step(model)
    single = MANY[method].removesuffix("_many")
    assert calls.of[f"{MANY[method]}_forward"] == calls.of[f"{MANY[method]}_backward"] == 1
    assert calls.of[f"{single}_forward"] == calls.of[f"{single}_backward"] == 0
    assert_same_step(model, without_cache(model))


def test_large_weights_stay_alone(monkeypatch):
    monkeypatch.setitem(table.TOGETHER_BELOW, "cpu", (8 * 8 * 9, "this test"))
    model = student()
    with Calls() as calls:
        step(model)
    assert calls.of["lsq_many_forward"] == calls.of["lsq_forward"] == 1  # conv2 is just too large
    assert_same_step(model, without_cache(model))


def test_each_method_and_dtype_has_its_own_call():
    overrides = {"conv2": {"weight_method": "ewgs"}, "fc": {"weight_method": "ewgs"}}
    model = student("lsq", overrides=overrides)
    with Calls() as calls:
        step(model)
    assert calls.of["ewgs_many_forward"] == 1
    assert calls.of["lsq_forward"] == 1, "one weight alone gains nothing"
    assert calls.of["lsq_many_forward"] == 0


def test_a_layer_called_alone_quantizes_alone():
    model = student()
    model(images())
    for _ in range(2):  # a weight of the last forward pass could be used once
        model.conv1(images()).sum().backward()
    assert model.conv1.weight.grad is not None


@pytest.mark.parametrize("quietly", [False, True])
def test_weights_changed_by_the_layers_own_hooks(quietly):
    """Pruning masks, norms and the like run after the cache; a change of ``.data`` is invisible."""
    model = student()

    def halve(layer, args):
        with torch.no_grad():
            (layer.weight.data if quietly else layer.weight).mul_(0.5)

    alone = without_cache(model)
    for one in (model, alone):
        one.conv2.register_forward_pre_hook(halve)
    assert_same_step(model, alone)


def test_weights_changed_by_the_models_forward_pass():
    class Changing(SmallNet):
        def forward(self, x):
            with torch.no_grad():
                self.conv2.weight.mul_(0.5)
            return super().forward(x)

    model = student(model=Changing())
    alone = without_cache(model)
    with torch.no_grad():
        assert torch.equal(model(images()), alone(images()))


def test_weights_replaced_within_the_forward_pass():
    model = student()
    other = nn.Parameter(0.5 * model.conv2.weight.detach())
    assert other._version == model.conv2.weight._version

    def replace(module, args):
        model.conv2.weight = other

    model.bn1.register_forward_pre_hook(replace)
    found = model(images())
    assert torch.equal(found, without_cache(model)(images()))
    found.sum().backward()
    assert other.grad is not None


def test_functional_call_uses_the_weights_it_is_given():
    model = student()
    other = {n: p.detach() * 1.5 for n, p in model.named_parameters()}
    wanted = without_cache(model)
    wanted.load_state_dict(other, strict=False)
    found = torch.func.functional_call(model, other, images())
    assert torch.equal(found, wanted(images()))
    assert not torch.equal(found, model(images()))


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_without_gradients(context):
    model = student()
    with context():
        assert torch.equal(model(images()), without_cache(model)(images()))
    assert_same_step(model, without_cache(model))


def test_copies_and_saved_models_have_caches_of_their_own(tmp_path):
    model = student()
    model(images())
    torch.save(model, tmp_path / "whole.pt")
    loaded = torch.load(tmp_path / "whole.pt", weights_only=False)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), loaded):
        with Calls() as calls:
            step(twin)
        assert calls.of["lsq_many_forward"] == 1
        assert_same_step(twin, without_cache(model))
        twin.conv1.weight.data.zero_()
        assert model.conv1.weight.any()
    assert_same_step(model, without_cache(model))


def test_a_copied_part_leaves_the_model_behind():
    model = student()
    assert len(pickle.dumps(model.fc)) < 0.5 * len(pickle.dumps(model))


def test_a_copy_made_within_a_forward_pass():
    model, copies = student(), []
    model.conv2.register_forward_pre_hook(lambda *_: copies.append(copy.deepcopy(model.conv1)))
    model(images())
    assert copies[0].cached_weight is None


def test_groups_are_made_once(monkeypatch):
    model, made = student(act_bits=3), []
    make = WeightCache._make_calls
    monkeypatch.setattr(WeightCache, "_make_calls", lambda cache: made.append(1) or make(cache))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        step(model)
        optimizer.step()
    assert made == []
    model.conv2.weight_quantizer.bits = 2
    step(model)
    step(model)
    assert made == [1]


def replaced(module: nn.Module, name: str) -> None:
    setattr(module, name, nn.Parameter(getattr(module, name).detach() * 1.3))


CHANGES = {
    "bits": lambda layer: setattr(layer.weight_quantizer, "bits", 2),
    "grad_scale": lambda layer: setattr(layer.weight_quantizer, "grad_scale", 0.7),
    "delta": lambda layer: setattr(layer.weight_quantizer, "delta", 0.9),
    "weight": lambda layer: replaced(layer, "weight"),
    "step": lambda layer: replaced(layer.weight_quantizer, "step"),
    "lower": lambda layer: replaced(layer.weight_quantizer, "lower"),
    "weight in place": lambda layer: layer.weight.data.mul_(1.3),
    "step in place": lambda layer: layer.weight_quantizer.step.data.mul_(1.3),
    "frozen weight": lambda layer: layer.weight.requires_grad_(False),
    "frozen layer": lambda layer: layer.requires_grad_(False),
    "quantizer": lambda layer: setattr(
        layer, "weight_quantizer", copy.deepcopy(layer.weight_quantizer)
    ),
    "no quantizer": lambda layer: setattr(layer, "weight_quantizer", None),
    "activations": lambda layer: setattr(layer, "act_quantizer", None),
    "hook": lambda layer: layer.register_forward_pre_hook(
        lambda layer, args: layer.weight.data.mul_(0.5)
    ),
    "computed weight": lambda layer: nn.utils.parametrize.register_parametrization(
        layer, "weight", nn.Tanh()
    ),
}
APART = ("hook", "computed weight", "delta")
ONLY = {"delta": ("ewgs",), "lower": ("ewgs",), "grad_scale": ("lsq",), "step": ("lsq",)}


@pytest.mark.parametrize(
    ("method", "change"),
    [(m, c) for c in CHANGES for m in ONLY.get(c.removesuffix(" in place"), METHODS)],
)
def test_what_changes_between_two_passes(method, change):
    model = student(method, act_bits=3, act_method="pact")
    step(model)
    before = step(model)
    alone = without_cache(model)
    for one in (model, alone):
        CHANGES[change](one.conv2)
    assert_same_step(model, alone)
    with Calls() as calls:
        (y, grads), (y2, grads2) = before, step(model)
    assert calls.of[f"{MANY[method]}_forward"] == 1
    assert calls.of[f"{MANY[method].removesuffix('_many')}_forward"] == (change in APART)
    same = torch.equal(y, y2) and all(
        name in grads2
        and (grads[name] is None) == (grads2[name] is None)
        and (grads[name] is None or torch.equal(grads[name], grads2[name]))
        for name in grads
    )
    assert same == (change == "quantizer"), "what changes nothing proves nothing"


def test_a_layer_that_is_moved():
    model = student(act_bits=3)
    step(model)
    alone = without_cache(model)
    for one in (model, alone):
        one.bn1.register_forward_hook(lambda module, args, y: y.double())
        one.conv2.double().register_forward_hook(lambda module, args, y: y.float())
    assert_same_step(model, alone)


def test_a_model_that_is_moved():
    model = student(act_bits=3)
    step(model)
    alone = without_cache(model)
    for one in (model, alone):
        one.double()
    (y, grads), (y2, grads2) = (step(one, images().double()) for one in (model, alone))
    assert y.dtype == torch.float64
    assert torch.equal(y, y2)
    assert all(torch.equal(grads[name], grads2[name]) for name in grads)
    with Calls() as calls:
        step(model, images().double())
    assert calls.of["lsq_many_forward"] == 1


class Twice(nn.Module):
    """One layer used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 6)
        self.never = nn.Linear(6, 6)

    def forward(self, x):
        return self.second(torch.relu(self.first(torch.relu(self.first(x)))))


@each_method
def test_a_layer_used_twice_and_one_never(method):
    x = torch.randn(5, 6)
    model = daqakd.quantize(Twice(), weight_bits=3, act_bits=None, method=method)
    model.zero_grad()
    model(x).square().mean().backward()
    found = {n: p.grad for n, p in model.named_parameters()}
    alone = without_cache(model)
    alone.zero_grad()
    alone(x).square().mean().backward()
    assert found["never.weight"] is None
    for name, p in alone.named_parameters():
        if p.grad is None:
            assert found[name] is None
        else:
            torch.testing.assert_close(found[name], p.grad)


class Checkpointed(nn.Module):
    """Blocks of which some are run again in the backward pass."""

    def __init__(self, reentrant: bool, which: tuple[bool, bool, bool]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(6, 6), nn.Tanh()) for _ in range(3))
        self.tail = nn.Linear(6, 6)
        self.reentrant, self.which = reentrant, which

    def forward(self, x):
        for block, again in zip(self.blocks, self.which, strict=True):
            x = checkpoint(block, x, use_reentrant=self.reentrant) if again else block(x)
        return self.tail(self.tail(x))


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # in calibrate
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", ["lsq", "pact", "dorefa", "ewgs"])
def test_checkpointing(method, reentrant):
    torch.manual_seed(0)
    net, x = Checkpointed(reentrant, (True, False, True)), torch.randn(5, 6, requires_grad=True)
    model = daqakd.quantize(net, weight_bits=3, act_bits=4, method=method, first_last="same")
    daqakd.calibrate(model, x.detach())
    alone = without_cache(model)
    for _ in range(3):  # the first pass finds out which layers are left out
        results = [step(one.train(), x)[1] for one in (model, alone)]
        assert None not in results[0].values()
        for name, grad in results[0].items():
            torch.testing.assert_close(grad, results[1][name])
    with Calls() as calls:
        step(model, x)
    many = MANY["dorefa" if method == "pact" else method]
    assert calls.of[f"{many}_forward"] == 1, "the rest is still quantized together"
    (hook,) = model._forward_pre_hooks.values()
    assert hook.__self__.layers == [model.blocks[1][0], model.tail]


def test_offloading_saved_tensors():
    model = student()
    with torch.autograd.graph.save_on_cpu():
        loss = model(images()).square().mean()
    loss.backward()
    assert model.conv1.weight.grad is not None


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # Dynamo
def test_compiled_whole_and_in_part():
    model = student(act_bits=3)
    wanted = step(without_cache(model))
    torch._dynamo.reset()
    whole = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(step(whole)[0], wanted[0])
    part = copy.deepcopy(model)
    part.conv2 = torch.compile(part.conv2, fullgraph=True, backend="aot_eager")
    with torch._dynamo.config.patch(error_on_recompile=True):
        for _ in range(3):
            torch.testing.assert_close(step(part)[0], wanted[0])


def test_a_failed_forward_pass_leaves_nothing_behind():
    model = student()
    with pytest.raises(RuntimeError):
        model(torch.randn(1, 5, 4, 4))
    assert model.conv1.cached_weight is model.conv1.activation_cache is None


def test_another_thread_does_not_take_this_ones_weights():
    from threading import Thread

    model, taken = student(), []

    def look(*_):
        other = Thread(target=lambda: taken.append(model.conv1.cached_weight.get()))
        other.start()
        other.join()
        taken.append(model.conv1.cached_weight.get())

    model.bn1.register_forward_pre_hook(look)
    model(images())
    assert taken[0] is None
    assert taken[1] is not None


def test_replicas_do_not_touch_the_weight_cache():
    model = student()
    replica = model._replicate_for_data_parallel()
    assert replica._is_replica
    with Calls() as calls:
        replica(images())
    assert calls.of["lsq_many_forward"] == 0


def test_dequantized_models_have_no_weight_cache():
    plain = daqakd.dequantize(student())
    assert not plain._forward_pre_hooks
    assert not plain._forward_hooks
    assert not plain._forward_hooks_always_called
