"""What a compiled student is made of: formulas where the table says so, our ops elsewhere."""

import copy
from collections import Counter
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from daqakd import functional
from daqakd._ops import stem_of
from daqakd.backends import choose, table, use_backend

from .test_quant import METHODS, calibrated

each_method = pytest.mark.parametrize("method", METHODS)


@pytest.fixture(autouse=True)
def _nothing_compiled():
    torch._dynamo.reset()


class Graphs:
    """A backend of torch.compile that runs graphs as they are and counts the ops in them."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self.compile = aot_autograd(fw_compiler=self._take, bw_compiler=self._take)

    def _take(self, graph: torch.fx.GraphModule, inputs: list[Tensor]):
        self.of.update(str(node.target) for node in graph.graph.nodes)
        return make_boxed_func(graph.forward)

    @property
    def ours(self) -> list[str]:
        return [name for name in self.of if "daqakd" in name]


X = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def results(model: nn.Module) -> list[Tensor]:
    """Return loss and gradients."""
    model.zero_grad()
    x = X.clone().requires_grad_()
    loss = model(x).square().mean()
    loss.backward()
    return [loss.detach(), x.grad, *(p.grad for p in model.parameters())]


def assert_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@each_method
def test_a_student_is_one_graph_with_the_formulas_that_the_table_names(method):
    student, graphs = calibrated(method).train(), Graphs()
    compiled = torch.compile(copy.deepcopy(student), fullgraph=True, backend=graphs.compile)
    assert_close(results(compiled), results(student))
    assert graphs.of
    stems = {stem_of(name.split(".")[1]) for name in graphs.ours}
    wanted = {"pact": {"pact", "dorefa_weight"}, "dorefa": {"dorefa_activation", "dorefa_weight"}}
    assert stems == wanted.get(method, set())
    assert not stems & table.INLINED["cpu"].keys()


@pytest.mark.slow
@each_method
def test_inductor_gives_what_eager_gives(method):
    student = calibrated(method).train()
    compiled = torch.compile(copy.deepcopy(student), fullgraph=True)
    assert_close(results(compiled), results(student))


def each_forced():
    """Every method with every backend; the ordinary run takes one method with the second."""
    for i, backend in enumerate(dict.fromkeys([choose("lsq", X), "reference"])):
        for method in METHODS:
            marks = pytest.mark.slow if i and method != "pact" else ()
            yield pytest.param(method, backend, marks=marks)


@pytest.mark.parametrize(("method", "backend"), list(each_forced()))
def test_a_forced_backend_keeps_its_ops(method, backend):
    student, graphs = calibrated(method).train(), Graphs()
    with use_backend(backend):
        compiled = torch.compile(copy.deepcopy(student), fullgraph=True, backend=graphs.compile)
        found, wanted = results(compiled), results(student)
    assert all(map(torch.equal, found, wanted))
    assert graphs.ours
    assert all(name.endswith(f".{backend}") for name in graphs.ours)


def test_a_compiled_student_notices_what_is_forced():
    student, graphs = calibrated().train(), Graphs()
    compiled = torch.compile(student, fullgraph=True, backend=graphs.compile)
    free = results(compiled)
    assert graphs.ours == []
    with use_backend(choose("lsq", X)):
        assert_close(results(compiled), free)
    assert graphs.ours


def test_the_table_decides_by_op(monkeypatch):
    monkeypatch.setitem(table.INLINED, "cpu", {"ewgs": "this test"})
    student, graphs = calibrated("lsq").train(), Graphs()
    compiled = torch.compile(copy.deepcopy(student), fullgraph=True, backend=graphs.compile)
    assert_close(results(compiled), results(student))
    assert {name.split(".")[1] for name in graphs.ours} == {"lsq_forward", "lsq_backward"}


LSQ = partial(functional.lsq, bits=3, signed=True)
FORMS = {
    "lsq": lambda x, p: LSQ(x, p, grad_scale=0.3),
    "lsq-channels": lambda x, p: LSQ(x, p.expand(x.shape[1]), axis=1),
    "lsq-open": lambda x, p: LSQ(x, p, ste="open"),
    "lsq-rounded": lambda x, p: LSQ(x, p, ste="rounded"),
    "ewgs": lambda x, p: functional.ewgs(x, -p, p, bits=3, delta=0.2),
    "ewgs-tensor": lambda x, p: functional.ewgs(x, -p, p, bits=3, delta=p.detach()),
}
LAYOUTS = {
    "contiguous": lambda x: x,
    "channels_last": lambda x: x.to(memory_format=torch.channels_last),
    "transposed": lambda x: x.transpose(0, 3).contiguous().transpose(0, 3),
    "gaps": lambda x: torch.stack([x, x], -1)[..., 0],
    "bfloat16": lambda x: x.bfloat16(),
}


@pytest.mark.parametrize(
    ("form", "layout"),
    [(f, k) for f in FORMS for k in LAYOUTS if f == "lsq" or k == "contiguous"],
)
def test_a_form_compiled_is_the_form(form, layout):
    torch.manual_seed(0)
    function, graphs, found = FORMS[form], Graphs(), []
    x, g = LAYOUTS[layout](torch.randn(2, 3, 4, 5)), torch.randn(2, 3, 4, 5)
    x[0, 0, 0, :2] = torch.tensor([float("nan"), 0.0])
    compiled = torch.compile(function, fullgraph=True, backend=graphs.compile)
    for run in (function, compiled):
        leaf, p = x.clone().requires_grad_(), torch.tensor(0.7, requires_grad=True)
        y = run(leaf, p)
        found.append((y.detach(), *torch.autograd.grad(y, (leaf, p), g.to(y.dtype))))
    assert graphs.ours == []
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, equal_nan=True)
