"""What holds for every op: schema, shape function, compilation, export, determinism, errors."""

import contextlib
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map_only

import daqakd
from daqakd import InputError, _ops, functional
from daqakd.functional.cmi import new_state

from ..helpers.cases import each_backend
from ..helpers.samples import HARD, SAMPLES, runnable, samples, scalar, tensors
from ..helpers.wrong_arguments import ONES, SETTINGS, VALID, WRONG, wrong_kinds

each_op = pytest.mark.parametrize("name", _ops.SCHEMAS)


def test_every_op_has_samples():
    assert set(SAMPLES) == set(_ops.SCHEMAS)


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


WRITTEN = {
    "cmi_update": lambda given: given[:1],
    "bn_act_quant_forward": lambda given: given[4:6] if given[6] else [],
}


@each_backend
@each_op
def test_inputs_are_not_written(name, backend):
    op = runnable(name, backend)
    for arguments in samples(name, backend):
        given = tensors(arguments)
        kept = [a.clone() for a in given]
        op(*arguments)
        written = WRITTEN.get(name, lambda given: [])(arguments)
        for a, b in zip(given, kept, strict=True):
            assert any(a is one for one in written) or torch.equal(a, b)


@pytest.mark.parametrize("op", _ops.SCHEMAS)
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
    "lsqplus": lambda x, p: functional.lsqplus(x, p, -p, bits=3),
    "seq": lambda x, p: functional.seq(x, p, levels=4),
    "lsq_many": lambda x, p: torch.stack(
        functional.lsq_many([x, 2 * x], [p, p / 2], bits=3, signed=True)
    ),
    "dorefa_weight_many": lambda x, p: torch.stack(
        functional.dorefa_weight_many([x * p, x], bits=3)
    ),
    "ewgs_many": lambda x, p: torch.stack(
        functional.ewgs_many([x, 2 * x], [-p, -2 * p], [p, 2 * p], bits=3, delta=0.1)
    ),
    "bn_act_quant": lambda x, p: functional.bn_act_quant(
        x, method="lsq", parameters=(p,), bits=3, residual=x / 2
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


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if not name.startswith(("cmi", "kd"))])
@pytest.mark.parametrize("dtypes", [(torch.float64, torch.float32), (torch.float32, torch.float64)])
def test_gradients_have_the_dtypes_of_what_they_belong_to(name, dtypes):
    x, p = torch.randn(3, 5).to(dtypes[0]), scalar(0.8).to(dtypes[1])
    _, dx, dp = value_and_gradients(FUNCTIONS[name], x, p)
    assert (dx.dtype, dp.dtype) == dtypes


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


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        pytest.param(name, *pair, id=f"{name}-{i}-{next(iter(pair[0]))}")
        for name, pairs in WRONG.items()
        for i, pair in enumerate(pairs)
    ],
)
def test_error_names_the_argument(name, change, message):
    with pytest.raises(InputError, match=message):
        VALID[name](**change)


@pytest.mark.parametrize(
    ("function", "name", "value", "message"),
    [
        pytest.param(*row, id=f"{row[0]}-{row[1]}-{type(row[2]).__name__}-{i}")
        for i, row in enumerate(wrong_kinds())
    ],
)
def test_a_value_of_another_kind_is_refused_in_a_sentence(function, name, value, message):
    with pytest.raises(InputError, match=message) as caught:
        VALID[function](**{name: value})
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("name", "setting"), SETTINGS)
def test_a_setting_is_a_single_value(name, setting):
    with pytest.raises(InputError, match=rf"{setting}: expected a 0-dim tensor, got shape \(2,\)"):
        VALID[name](**{setting: ONES})
