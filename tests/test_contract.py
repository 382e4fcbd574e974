"""What holds for every op: schema, shape function, compilation, export, determinism."""

import contextlib
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map_only

import daqakd
from daqakd import _ops, functional
from daqakd.backends import can_run
from daqakd.backends._layout import pack
from daqakd.functional.cmi import new_state

from . import cases
from .cases import each_backend
from .plans import example_plan, op_arguments, random_pixels


def scalar(value: float) -> Tensor:
    return torch.tensor(value)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, 4, 5).to(dtype).to(memory_format=torch.channels_last)


def columns(dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor that is not dense."""
    return torch.randn(3, 8).to(dtype)[:, 1:6]


def mask(bits: int) -> Tensor:
    """Return a packed mask for ``images()``, without the code of NaN."""
    return pack(torch.randint(0, bits + 1, images().shape), images(), bits)


def centroids() -> Tensor:
    return torch.rand(5, 5, dtype=torch.float64).softmax(1)


HARD = torch.tensor([0, 4, 2])
SOFT = torch.full((3, 5), 0.2)
NUMBERS, NO_TENSORS = (4.0, 1.0, 2.0), (None, None, None)
TENSORS = tuple(scalar(number) for number in NUMBERS)
HALF = torch.bfloat16

SAMPLES = {
    "lsq_forward": lambda: [
        (images(), scalar(0.3), -4, 3, None),
        (columns(HALF), torch.rand(5), 0, 15, 1),
        (torch.randn(()), scalar(0.3), -4, 3, None),
    ],
    "lsq_backward": lambda: [
        (images(), images(), scalar(0.3), -4, 3, None, 0, 1.0),
        (columns(HALF), columns(HALF), torch.rand(5), 0, 15, -1, 2, 0.5),
        (columns().double(), columns().double(), torch.rand(3).double(), 0, 15, 0, 1, 0.5),
    ],
    "pact_forward": lambda: [
        (images(), scalar(1.0), 4, False, None),
        (columns(HALF), torch.rand(5), 3, True, 1),
        (torch.zeros(0, 3), scalar(1.0), 4, False, None),
    ],
    "pact_backward": lambda: [
        (images(), mask(2), scalar(1.0), False, None),
        (images(HALF), mask(2), torch.rand(3), True, 1),
    ],
    "dorefa_activation_forward": lambda: [(images(), 4, False), (columns(HALF), 3, True)],
    "dorefa_activation_backward": lambda: [(images(), mask(1)), (images(HALF), mask(1))],
    "dorefa_weight_forward": lambda: [(images(), 4), (columns(HALF), 1), (torch.zeros(0), 2)],
    "dorefa_weight_backward": lambda: [
        (images(), images(), scalar(0.9), 4, True),
        (columns(HALF), columns(HALF), scalar(0.9), 1, False),
    ],
    "ewgs_forward": lambda: [
        (images(), scalar(-1.0), scalar(1.0), 4),
        (columns(HALF), scalar(-1.0), scalar(1.0), 1),
    ],
    "ewgs_backward": lambda: [
        (images(), images(), scalar(-1.0), scalar(1.0), 4, 0.1, None),
        (columns(HALF), columns(HALF), scalar(-1.0), scalar(1.0), 4, 0.0, scalar(0.1)),
    ],
    "lsq_many_forward": lambda: [
        ([images(), columns()], [scalar(0.3), torch.rand(3)], [-4, -2], [3, 1]),
        ([columns(HALF), torch.zeros(0).to(HALF)], [torch.rand(3), scalar(0.3)], [0, 0], [15, 3]),
    ],
    "lsq_many_backward": lambda: [
        (
            [images(), columns()],
            [images(), columns()],
            [scalar(0.3), torch.rand(3)],
            *([-4, -2], [3, 1], 0, [1.0, 0.5]),
        ),
    ],
    "dorefa_weight_many_forward": lambda: [
        ([images(), columns()], [4, 1]),
        ([columns(HALF), torch.zeros(0).to(HALF)], [1, 2]),
    ],
    "dorefa_weight_many_backward": lambda: [
        ([images(), columns()], [images(), columns()], torch.rand(2), [4, 1], True),
        ([columns(HALF)], [columns(HALF)], torch.rand(1), [4], False),
    ],
    "ewgs_many_forward": lambda: [
        ([images(), columns()], [scalar(-1.0)] * 2, [scalar(1.0)] * 2, [4, 1]),
    ],
    "ewgs_many_backward": lambda: [
        (
            [images(), columns()],
            [images(), columns()],
            *([scalar(-1.0), scalar(-0.5)], [scalar(1.0), scalar(0.5)], [4, 1], 0.1, None),
        ),
        ([columns(HALF)],) * 2 + ([scalar(-1.0)], [scalar(1.0)], [4], 0.0, scalar(0.1)),
    ],
    "kd_loss_forward": lambda: [
        (columns(), columns(), HARD, *NUMBERS, *NO_TENSORS, 0.1, -100, 1, True),
        (columns(HALF), columns(), SOFT, *NUMBERS, *TENSORS, 0.0, -100, 0, True),
        (columns(HALF), columns(), None, *NUMBERS, *NO_TENSORS, 0.0, -100, 2, False),
    ],
    "kd_loss_backward": lambda: [
        (scalar(0.5), columns(), columns(), HARD, *NUMBERS, *NO_TENSORS, 0.1, -100, 1),
        (torch.rand(3), columns(HALF), columns(), SOFT, *NUMBERS, *TENSORS, 0.0, -100, 0),
    ],
    "cmi_update": lambda: [
        (new_state(5), columns(), HARD, None, None),
        (new_state(5, 2), columns(HALF), SOFT, torch.rand(3), torch.tensor([0, 1, 1])),
    ],
    "cmi_divergence": lambda: [
        (columns(), HARD, centroids()),
        (columns(HALF), SOFT, centroids()),
    ],
    "cmi_divergence_backward": lambda: [
        (torch.rand(3).double(), columns(), HARD, centroids()),
        (torch.rand(3).double(), columns(HALF), SOFT, centroids()),
    ],
    "augment": lambda: [
        op_arguments(example_plan(3), random_pixels(3)),
        op_arguments(example_plan(3, 2, 2, "cutmix"), random_pixels(3), HALF, True),
        op_arguments(example_plan(3, 1, 0, "mixup"), random_pixels(3)),
        op_arguments(replace(example_plan(3), values=None), random_pixels(3), torch.uint8),
    ],
}
each_op = pytest.mark.parametrize("name", _ops.OPS)


def stem(name: str) -> str:
    """Return the name the backends know an op by."""
    return re.sub(r"_(forward|backward|update|divergence)", "", name)


def runnable(name: str, backend: str):
    cases.require(stem(name), backend, torch.uint8 if name == "augment" else torch.float32)
    return _ops.overload(name, backend)


def samples(name: str, backend: str) -> list:
    """Return the samples in dtypes that ``backend`` takes; one at least."""
    place = 1 if name in ("cmi_update", "cmi_divergence_backward") else 0  # of the logits
    found = [
        arguments
        for arguments in SAMPLES[name]()
        if can_run(stem(name), backend, "cpu", tensors(arguments)[place].dtype) is None
    ]
    assert found
    return found


def tensors(values) -> list[Tensor]:
    """Return the tensors in a tree of arguments or results, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]


def test_every_op_has_samples():
    assert set(SAMPLES) == set(_ops.OPS)


@each_backend
@each_op
def test_opcheck(name, backend):
    op = runnable(name, backend)
    for arguments in samples(name, backend):
        torch.library.opcheck(op, arguments)


@each_backend
@each_op
def test_shape_function_tells_the_truth(name, backend):
    op = runnable(name, backend)
    for arguments in samples(name, backend):
        with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
            fakes = tree_map_only(Tensor, mode.from_tensor, arguments)
            promised = tensors(op(*fakes))
        for result, promise in zip(tensors(op(*arguments)), promised, strict=True):
            assert result.dtype == promise.dtype
            assert result.shape == promise.shape
            assert result.stride() == promise.stride()


@each_backend
@each_op
def test_same_inputs_give_the_same_bits(name, backend):
    op = runnable(name, backend)
    for arguments in samples(name, backend):
        first, second = tensors(op(*arguments)), tensors(op(*arguments))
        for a, b in zip(first, second, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True)


@each_backend
@each_op
def test_inputs_are_not_written(name, backend):
    op = runnable(name, backend)
    for arguments in samples(name, backend):
        given = tensors(arguments)
        kept = [a.clone() for a in given]
        op(*arguments)
        written = slice(1, None) if name == "cmi_update" else slice(None)
        for a, b in zip(given[written], kept[written], strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("op", _ops.OPS)
def test_no_source_calls_an_op_without_its_overload(op):
    """Calling the packet would cost an overload resolution and hide which backend runs."""
    overloads = "|".join(_ops.BACKENDS)
    packet = re.compile(rf"ops\.daqakd\.{op}\b(?!\.({overloads})\b)")
    sources = sorted(Path(daqakd.__file__).parent.rglob("*.py"))
    assert sources
    assert not [path.name for path in sources if packet.search(path.read_text())]


FUNCTIONS = {
    "lsq": lambda x, p: functional.lsq(x, p, bits=3, signed=True),
    "lsq-channels": lambda x, p: functional.lsq(x, p.expand(5), bits=3, signed=True, axis=1),
    "pact": lambda x, p: functional.pact(x, p, bits=3),
    "dorefa_weight": lambda x, p: functional.dorefa_weight(x * p, bits=3),
    "dorefa_activation": lambda x, p: functional.dorefa_activation(x * p, bits=3),
    "ewgs": lambda x, p: functional.ewgs(x, -p, p, bits=3, delta=0.1),
    "lsq_many": lambda x, p: torch.stack(
        functional.lsq_many([x, 2 * x], [p, p / 2], bits=3, signed=True)
    ),
    "dorefa_weight_many": lambda x, p: torch.stack(
        functional.dorefa_weight_many([x * p, x], bits=3)
    ),
    "ewgs_many": lambda x, p: torch.stack(
        functional.ewgs_many([x, 2 * x], [-p, -2 * p], [p, 2 * p], bits=3, delta=0.1)
    ),
    "kd_loss": lambda x, p: functional.kd_loss(x * p, x.detach().flip(1), HARD),
    "kd_loss-tensors": lambda x, p: functional.kd_loss(
        x * p, x.detach().flip(1), HARD, temperature=p.detach(), reduction="none"
    ),
    "kd_loss-recompute": lambda x, p: functional.kd_loss(
        x * p, x.detach().flip(1), HARD, recompute=True
    ),
    "cmi": lambda x, p: functional.cmi(x * p, HARD),
}
each_function = pytest.mark.parametrize("name", FUNCTIONS)


def value_and_gradients(function, x: Tensor, p: Tensor) -> tuple[Tensor, ...]:
    x, p = x.clone().requires_grad_(), p.clone().requires_grad_()
    y = function(x, p)
    return y.detach(), *torch.autograd.grad(y.sum(), (x, p))


@each_function
def test_compiles_in_one_graph(name):
    x, p = torch.randn(3, 5), scalar(0.8)
    compiled = torch.compile(FUNCTIONS[name], fullgraph=True, backend="aot_eager")
    expected = value_and_gradients(FUNCTIONS[name], x, p)
    for result, wanted in zip(value_and_gradients(compiled, x, p), expected, strict=True):
        torch.testing.assert_close(result, wanted)


def test_update_compiles_in_one_graph():
    compiled = torch.compile(functional.cmi_update, fullgraph=True, backend="aot_eager")
    x, states = torch.randn(3, 5), (new_state(5), new_state(5))
    compiled(states[0], x, HARD)
    functional.cmi_update(states[1], x, HARD)
    assert states[0].any()
    assert torch.equal(*states)


class Quantized(torch.nn.Module):
    """A linear layer with quantized weights and activations."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(5, 4)
        self.step = torch.nn.Parameter(torch.full((4,), 0.1))
        self.alpha = torch.nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        weight = functional.lsq(self.linear.weight, self.step, bits=4, signed=True, axis=0)
        x = functional.pact(x, self.alpha, bits=4)
        x = functional.dorefa_activation(x, bits=4)
        x = functional.ewgs(x, scalar(-1.0), scalar(1.0), bits=4)
        weight = weight + functional.dorefa_weight(self.linear.weight, bits=4)
        return torch.nn.functional.linear(x, weight, self.linear.bias)


def test_an_exported_program_needs_no_daqakd():
    module, x = Quantized(), torch.randn(3, 5)
    program = torch.export.export(module, (x,), dynamic_shapes={"x": {0: torch.export.Dim.AUTO}})
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert any("aten.round" in target for target in targets)
    assert not [target for target in targets if "daqakd" in target]
    torch.testing.assert_close(program.module()(x), module(x))


@contextlib.contextmanager
def unless_refused(message: str):
    """Allow a RuntimeError that says ``message``."""
    try:
        yield
    except RuntimeError as error:
        if not re.search(message, str(error)):
            raise


@each_function
def test_vmap_is_right_or_a_clear_error(name):
    x, p = torch.randn(2, 3, 5), scalar(0.8)
    function = FUNCTIONS[name]
    with unless_refused("vmap|functorch|Batching rule not implemented"):
        result = torch.vmap(function, in_dims=(0, None))(x, p)
        torch.testing.assert_close(result, torch.stack([function(row, p) for row in x]))


@each_function
def test_double_backward_is_a_clear_error(name):
    x, p = torch.randn(3, 5, requires_grad=True), scalar(0.8).requires_grad_()
    y = FUNCTIONS[name](x, p)
    g = torch.ones_like(y, requires_grad=True)
    gradients = torch.autograd.grad(y, (x, p), g, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        sum(gradient.sum() for gradient in gradients).backward()


@each_function
def test_double_backward_through_saved_tensors_is_a_clear_error(name):
    """A penalty on a gradient must not silently count as a constant."""
    x, p = torch.randn(3, 5, requires_grad=True), scalar(0.8).requires_grad_()
    gradients = torch.autograd.grad(FUNCTIONS[name](x, p).sum(), (x, p), create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        (x.sum() + sum(gradient.sum() for gradient in gradients)).backward()
