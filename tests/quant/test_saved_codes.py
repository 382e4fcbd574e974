"""``save="codes"``: the same gradients, bit for bit, from an eighth of the memory."""

import copy
import gc
import itertools
from functools import partial
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import daqakd
from daqakd.quant import QuantConv2d, saved_codes
from daqakd.quant.weight_cache import WeightCache

from ..helpers.cached import Calls
from ..helpers.live import LiveMemory
from .test_quant import METHODS

CODES = ("codes_pack", "codes_unpack")


class Everything(nn.Module):
    """Convolutions of every kind, and linear layers that read an input of three dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.strided = nn.Conv2d(8, 8, 3, 2, 1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.pointwise = nn.Conv2d(8, 12, 1)
        self.reflecting = nn.Conv2d(12, 12, 3, padding=1, padding_mode="reflect")
        self.query, self.key = nn.Linear(12, 6), nn.Linear(12, 6, bias=False)
        self.head = nn.Linear(6, 3)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.depthwise(torch.relu(self.strided(x))))
        x = torch.relu(self.reflecting(self.pointwise(x)))
        x = x.flatten(2).transpose(1, 2).contiguous()
        return self.head(torch.relu(self.query(x) + self.key(x)).mean(1))


def pair(method: str, model: type[nn.Module] = Everything, **options: Any) -> list[nn.Module]:
    """Return the same student twice: one keeps values, the other codes."""
    torch.manual_seed(0)
    net, batch = model(), torch.randn(4, 3, 12, 12)
    bits = {"weight_bits": 4, "act_bits": 4, **options}
    students = [daqakd.quantize(net, method=method, save=s, **bits) for s in ("values", "codes")]
    return [daqakd.calibrate(student, batch).train() for student in students]


def step(student: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the loss and the gradients, having trained by them."""
    optimizer = torch.optim.SGD(student.parameters(), lr=0.05)
    optimizer.zero_grad()
    loss = student(x).float().square().mean()
    loss.backward()
    optimizer.step()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    return [loss.detach(), x.grad.clone() if x.grad is not None else loss.detach(), *gradients]


def same_steps(students: list[nn.Module], x: Tensor, count: int = 3) -> None:
    for _ in range(count):
        inputs = [x.clone().requires_grad_() for _ in students]
        found, wanted = map(step, students, inputs)
        assert len(found) == len(wanted)
        assert all(map(torch.equal, found, wanted))
    assert all(map(torch.equal, students[0].parameters(), students[1].parameters()))


FORMATS = {"contiguous": torch.contiguous_format, "channels-last": torch.channels_last}


def each_training():
    """Every combination; in the ordinary run widths and layouts take turns."""
    factors = METHODS, (None, torch.bfloat16, torch.float16), (3, 8), FORMATS
    for (i, method), (j, autocast), (k, bits), (m, memory) in itertools.product(
        *map(enumerate, factors)
    ):
        marks = pytest.mark.slow if (i + j + k + m) % 2 else ()
        yield pytest.param(
            *(method, autocast, bits, memory),
            id=f"{method}-{autocast}-{bits}-{memory}",
            marks=marks,
        )


@pytest.mark.parametrize(("method", "autocast", "bits", "memory"), list(each_training()))
def test_training_gives_the_same_bits(method, autocast, bits, memory):
    students = pair(method, act_bits=bits)
    x = torch.randn(5, 3, 12, 12).to(memory_format=FORMATS[memory])
    with Calls() as calls, torch.autocast("cpu", autocast, enabled=autocast is not None):
        same_steps(students, x)
    layers = 7 + (autocast is None)  # reflecting padding keeps its input, which autocast copies
    shared = method == "dorefa"  # query and key read the same values
    assert [calls.of[name] for name in CODES] == [3 * (layers - shared), 3 * layers]


@pytest.mark.parametrize("method", METHODS)
def test_float64_gives_the_same_bits(method):
    students = [student.double() for student in pair(method)]
    same_steps(students, torch.randn(5, 3, 12, 12).double())


@pytest.mark.parametrize("method", METHODS)
def test_images_without_a_batch(method):
    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.stack([self.b(torch.relu(self.a(image))) for image in x])

    students = pair(method, One)
    with Calls() as calls:
        same_steps(students, torch.randn(2, 3, 12, 12), 1)
    assert calls.of["codes_pack"] == 4


class Chain(nn.Module):
    """Batch norm, ReLU, quantizer, convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(32), nn.Conv2d(32, 1, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(torch.relu(self.norm(x)))


def kept_per_element(student: nn.Module, x: Tensor) -> float:
    """Return the bytes alive after the forward pass, without its output, by the input's elements.

    The input is among them: batch norm keeps it.
    """
    student(x).sum().backward()  # whatever is made once
    with LiveMemory() as memory:
        y = student(x * 1)
        gc.collect()
        kept = memory.bytes - y.untyped_storage().nbytes()
        y.sum().backward()
    return kept / x.numel()


# batch norm's input, ReLU's output, PACT's and DoReFa's mask, the convolution's input
VALUES = {"lsq": 12, "pact": 12.25, "dorefa": 12.125, "ewgs": 12}


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("method", METHODS)
def test_kept_bytes_of_an_activation(method, bits, record_property):
    torch.manual_seed(0)
    net, batch = Chain(), torch.randn(4, 32, 24, 24)
    options = {"weight_bits": None, "act_bits": bits, "method": method, "first_last": "same"}
    kept = {}
    for save in ("values", "codes"):
        student = daqakd.quantize(net, save=save, **options)
        kept[save] = kept_per_element(daqakd.calibrate(student, batch).train(), batch)
    record_property(f"bytes an element, {method}, {bits} bits", kept)
    slot = {1: 1, 2: 2, 3: 4, 4: 4, 8: 8}[bits] / 8
    assert kept["values"] == pytest.approx(VALUES[method], abs=0.05)
    assert kept["codes"] == pytest.approx(VALUES[method] - 4 + slot, abs=0.05)


@pytest.mark.parametrize("method", METHODS)
def test_kept_bytes_of_an_activation_whose_chain_is_one_op(method, record_property):
    torch.manual_seed(0)
    net, batch = Chain(), torch.randn(4, 32, 24, 24)
    options = {"weight_bits": None, "act_bits": 4, "method": method, "first_last": "same"}
    fused, kept = [], {}
    for save in ("values", "codes"):
        student = daqakd.quantize(net, save=save, **options)
        fused.append(daqakd.fuse(daqakd.calibrate(student, batch).train()))
        kept[save] = kept_per_element(copy.deepcopy(fused[-1]), batch)
    record_property(f"bytes an element, fused, {method}", kept)
    assert kept["values"] <= 8.3
    assert kept["codes"] <= 4.8
    same_steps(fused, batch)


class Block(nn.Module):
    """A chain whose activation others read, with channels that share bytes of the codes."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm2d(6), nn.BatchNorm2d(6)
        self.conv, self.next = nn.Conv2d(6, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        t = torch.relu(self.norm(x))
        return self.next(torch.relu(self.last(self.conv(t)) + t))


@pytest.mark.parametrize("autocast", [None, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(3, 6, 8, 8), (3, 6, 7, 7)], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_fused_chains_write_the_codes_themselves(method, shape, autocast):
    torch.manual_seed(0)
    net, x = Block(), torch.randn(shape)
    options = {"weight_bits": 4, "act_bits": 3, "method": method, "first_last": "same"}
    students = [daqakd.quantize(net, save=s, **options) for s in ("values", "codes")]
    fused = [daqakd.fuse(daqakd.calibrate(student, x).train()) for student in students]
    with Calls() as calls, torch.autocast("cpu", autocast, enabled=autocast is not None):
        same_steps(fused, x)
    apart = autocast is not None  # the second chain: what it adds up has two dtypes
    assert [calls.of[name] for name in CODES] == [3 * apart, 3 * 2]
    assert calls.of["bn_act_quant_forward"] == 3 * 2 * (2 - apart)


def test_fused_chains_write_no_codes_that_nobody_keeps():
    student = daqakd.fuse(pair("lsq")[1])
    sizes = []

    class Sizes(Calls):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            found = super().__torch_dispatch__(func, types, args, kwargs)
            if "bn_act_quant_forward" in func.name():
                sizes.append(found[-1].numel())
            return found

    x = torch.randn(2, 3, 12, 12)
    with Sizes(), torch.no_grad():
        student(x)
    with Sizes(), torch.autograd.graph.save_on_cpu():
        student(x)
    assert sizes == [0, 0]
    with Sizes():
        student(x)
    assert sizes[2] > 0


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_within_checkpoints(method, reentrant):
    students = pair(method)
    for student in students:
        student.forward = partial(checkpoint, student.forward, use_reentrant=reentrant)
    same_steps(students, torch.randn(3, 3, 12, 12))


@pytest.mark.parametrize("method", METHODS)
def test_within_hooks_that_move_saved_tensors(method):
    students = pair(method)
    with Calls() as calls, torch.autograd.graph.save_on_cpu():
        same_steps(students, torch.randn(3, 3, 12, 12))
    assert calls.of["codes_pack"] == 0


class Convolution(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def test_without_gradients_nothing_is_packed():
    student = pair("pact")[1]
    with Calls() as calls, torch.no_grad():
        student(torch.randn(2, 3, 12, 12))
    assert calls.of["codes_pack"] == 0


def test_a_parameter_changed_before_backward_is_refused():
    for method, name in (("lsq", "step"), ("pact", "alpha")):
        student = pair(method, Convolution)[1]
        loss = student(torch.randn(2, 3, 12, 12)).sum()
        with torch.no_grad():
            getattr(student.conv.act_quantizer, name).mul_(2)
        with pytest.raises(RuntimeError, match="changed in place after the forward pass"):
            loss.backward()


def test_a_weight_changed_before_backward_is_refused():
    student = pair("lsq", Convolution, weight_bits=None, first_last="same")[1]
    loss = student(torch.randn(2, 3, 12, 12, requires_grad=True)).sum()
    with torch.no_grad():
        student.conv.weight.mul_(2)
    with pytest.raises(RuntimeError, match=r"changed in place .*\(4, 3, 3, 3\)"):
        loss.backward()


def test_backward_twice_and_gradients_with_a_graph():
    students, found = pair("pact"), []
    x = torch.randn(2, 3, 12, 12)
    for student in students:
        loss, weights = student(x).square().sum(), list(student.parameters())
        once = torch.autograd.grad(loss, weights, retain_graph=True)
        again = torch.autograd.grad(loss, weights, create_graph=True)
        assert all(map(torch.equal, once, again))
        found.append(once)
    assert all(map(torch.equal, *found))


def test_a_hook_on_the_quantizer_may_change_its_values():
    students = pair("lsq")
    for student in students:
        student.pointwise.act_quantizer.register_forward_hook(lambda m, args, y: y * 1.01 + 0.003)
    same_steps(students, torch.randn(3, 3, 12, 12))


def test_functional_transforms():
    student, x = pair("lsq")[1].eval(), torch.randn(2, 3, 12, 12)
    weights = dict(student.named_parameters())

    def loss(given):
        return torch.func.functional_call(student, given, (x,)).square().sum()

    wanted = torch.autograd.grad(loss(weights), weights["head.weight"])[0]
    with pytest.raises(RuntimeError, match=r"functorch|vmap|torch\.func"):
        torch.func.grad(loss)(weights)  # as with values: the quantizers have no rule for it
    assert wanted.isfinite().all()


def test_compiled_students_keep_values(monkeypatch):
    students, x = pair("pact"), torch.randn(2, 3, 12, 12)
    monkeypatch.setattr(saved_codes, "SavedCodes", None)
    for student in students:
        WeightCache.detach(student)
    same_steps([torch.compile(student, backend="aot_eager") for student in students], x, 1)


def test_copies_files_and_plain_models():
    values, codes = pair("ewgs")
    assert values.state_dict().keys() == codes.state_dict().keys()
    codes.load_state_dict(values.state_dict())
    twin = copy.deepcopy(codes)
    assert isinstance(twin.strided, QuantConv2d)
    assert twin.strided.save == "codes"
    assert "save=codes" in repr(twin.strided)
    assert "save" not in repr(values.strided)
    same_steps([values, twin], torch.randn(2, 3, 12, 12), 1)
    with pytest.warns(UserWarning, match="no longer"):
        plain = daqakd.dequantize(codes)
    assert not hasattr(plain.strided, "save")


def test_values_are_freed_with_the_codes_alone_kept():
    """Layers that share an input share its codes, and no cache holds the values."""
    student = pair("dorefa")[1]
    made: list[Any] = []
    original = saved_codes.SavedCodes.__init__

    def spy(self, y, *rest):
        made.append(saved_codes.ref(y))
        original(self, y, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(saved_codes.SavedCodes, "__init__", spy)
        loss = student(torch.randn(2, 3, 12, 12)).sum()
    assert len(made) == 7
    assert not [y for y in made if y() is not None]
    loss.backward()


def test_codes_that_are_known_are_taken():
    student = pair("lsq", Convolution)[1]
    layer, x = student.conv, torch.randn(2, 3, 12, 12)
    quantizer = layer.act_quantizer
    y = quantizer(x.requires_grad_())
    saved_codes.codes_of(y, quantizer, saved_codes.SavedCodes(y, quantizer).codes)
    with Calls() as calls:
        out = layer.saving_linear_map(y, layer.quantized_weight(), layer.bias)
        assert torch.equal(out, student(x))
        out.sum().backward()
    assert [calls.of[name] for name in CODES] == [1, 1], "of the student's own pass alone"


def test_distributed_training():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        students = pair("pact")
        parallel = [nn.parallel.DistributedDataParallel(student) for student in students]
        with Calls() as calls:
            same_steps(parallel, torch.randn(2, 3, 12, 12))
        assert calls.of["codes_pack"] == 3 * 8
    finally:
        dist.destroy_process_group()
