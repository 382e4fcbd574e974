"""What holds for every quantizer: values and gradients, NaN, infinity, small parameters, masks."""

import itertools
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from daqakd import _ops

from ..helpers import cases, quantizers, truth
from ..helpers.cases import each_backend, each_combination, each_dtype
from ..helpers.quantizers import (
    DOREFA_ACTIVATION,
    EWGS,
    LSQ,
    LSQPLUS,
    PACT,
    QUANTIZERS,
    SEQ,
    Quantizer,
    check_against_truth,
)

pytestmark = pytest.mark.usefixtures("poisoned_empty")
INF, NAN = float("inf"), float("nan")
EACH_CASE = {case.id: case for case in cases.CASES}


@pytest.mark.parametrize(
    ("quantizer", "case", "options", "dtype", "backend"),
    [p for q in QUANTIZERS for p in quantizers.combinations(q, q.forms, case=EACH_CASE)],
)
def test_agrees_with_truth(quantizer, case, options, dtype, backend):
    """Options that are not crossed with the layouts change from one to the next."""
    cases.require(quantizer.name, backend, dtype)
    x = case.make(dtype, scale=quantizer.scale)
    first = cases.CASES.index(case) + cases.DTYPES.index(dtype)
    for i, axis in enumerate(quantizer.axes(x)):
        varied = quantizer.options | options | quantizer.varied(first + i)
        check_against_truth(quantizer, x, axis, backend, **varied)


@pytest.mark.parametrize(
    ("quantizer", "options", "dtype", "backend"),
    [p for q in QUANTIZERS for p in quantizers.combinations(q, q.widths, whole=q is not LSQ)],
)
def test_agrees_with_truth_at_every_width(quantizer, options, dtype, backend):
    cases.require(quantizer.name, backend, dtype)
    x = quantizer.input_at_width(dtype, options)
    for axis in quantizer.axes(x):
        check_against_truth(quantizer, x, axis, backend, **options)


PLACED = {
    "tiles": cases.Case("tiles", (6_011,)),
    "runs": cases.Case("runs", (2, 3, 3_008)),
    "short-runs": cases.Case("short-runs", (9, 5, 40)),
    "uneven-runs": cases.Case("uneven-runs", (9, 5, 51)),
    "columns": cases.Case("columns", (70, 6, 4)),
}


def backends_by_dtype():
    for backend, dtype in itertools.product(("reference", "native", "emulated"), cases.DTYPES):
        late = backend == "emulated" and dtype != torch.float16
        label = f"{cases.dtype_name(dtype)}-{backend}"
        yield pytest.param(dtype, backend, id=label, marks=pytest.mark.slow if late else ())


@pytest.mark.parametrize(("dtype", "backend"), list(backends_by_dtype()))
@pytest.mark.parametrize("case", cases.named(PLACED.values(), lambda c: c.id))
@pytest.mark.parametrize("quantizer", cases.named(QUANTIZERS, lambda q: q.name))
def test_where_a_tensor_lies_changes_no_bit(quantizer, case, dtype, backend):
    """The order of a sum depends on the shape alone, whatever accesses the address allows."""
    cases.require(quantizer.name, backend, dtype)
    x = case.make(dtype, scale=quantizer.scale)
    g = cases.Case("g", case.base[::-1]).make(dtype).reshape(case.base)
    for axis in quantizer.axes(x) if x.dim() > 1 else [None]:
        options = quantizer.options | ({"axis": axis} if quantizer.per_channel else {})
        parameters = quantizer.parameters(x, axis)
        wanted = quantizer.results((x, *parameters), g, backend, **options)
        moved = cases.off_by_one_element(x), cases.off_by_one_element(g)
        found = quantizer.results((moved[0], *parameters), moved[1], backend, **options)
        assert all(map(torch.equal, found, wanted))


@dataclass(frozen=True)
class Edge:
    """Inputs at an edge, and what they give; None is not compared.

    ``smallest`` are the parameters at the smallest value in use; ``y`` is right within ``atol``.
    """

    quantizer: Quantizer
    x: list
    parameters: tuple
    options: dict
    g: list
    y: list
    dx: list
    dparameters: list | None = None
    smallest: tuple = ()
    atol: float = 0.0

    def results(self, parameters: tuple, dtype: torch.dtype, backend: str) -> tuple[Tensor, ...]:
        own = cases.parameter_dtype(dtype)
        inputs = [torch.tensor(self.x, dtype=dtype)]
        inputs += [torch.tensor(value, dtype=own) for value in parameters]
        g = torch.tensor(self.g, dtype=dtype)
        run = self.quantizer.function
        return truth.with_gradients(run, inputs, g, backend=backend, **self.options)


NAN_ROWS, ONES = [[0.5, NAN], [0.5, 1.0]], [[1.0, 1.0], [1.0, 1.0]]
SPECIAL = {
    "lsq-nan": Edge(
        *(LSQ, NAN_ROWS, ([0.5, 0.5],), {"bits": 3, "signed": True, "axis": 0}, ONES),
        *(NAN_ROWS, [[1, 0], [1, 1]], [[NAN, 0]]),
    ),
    "lsq-infinity": Edge(
        *(LSQ, [-INF, INF], (0.5,), {"bits": 3, "signed": True}, [1, 10]),
        *([-2.0, 1.5], [0, 0], [-4 + 30]),
    ),
    "pact-nan": Edge(
        *(PACT, NAN_ROWS, ([1.0, 1.0],), {"bits": 3, "axis": 0}, ONES),
        *(NAN_ROWS, [[1, 0], [1, 0]], [[NAN, 1]]),
        atol=0.08,  # 0.5 is a tie
    ),
    "pact-infinity": Edge(
        *(PACT, [-INF, INF], (1.0,), {"bits": 2}, [1, 10]),
        *([0.0, 1.0], [0, 0], [10]),
    ),
    "pact-signed-infinity": Edge(
        *(PACT, [-INF, INF], (1.0,), {"bits": 2, "signed": True}, [1, 10]),
        *([-1.0, 1.0], [0, 0], [9]),
    ),
    "dorefa_activation": Edge(
        *(DOREFA_ACTIVATION, [NAN, -INF, INF, 0.0, 1.0], (), {"bits": 2}, [1] * 5),
        *([NAN, 0, 1, 0, 1], [0, 0, 0, 1, 1], []),
    ),
    "ewgs-nan": Edge(
        *(EWGS, [NAN, -INF, INF, 0.5], (0.0, 1.0), {"bits": 1}, [1] * 4),
        *([NAN, 0, 1, 0], [0, 0, 0, 1], [NAN, NAN]),
    ),
    "ewgs-infinity": Edge(
        *(EWGS, [-INF, INF, 0.5], (0.0, 1.0), {"bits": 1}, [1] * 3),
        *([0, 1, 0], [0, 0, 1], [-0.5, -0.5]),
    ),
    "lsqplus-nan": Edge(
        *(LSQPLUS, [NAN, -INF, INF, 0.0], (0.5, -0.25), {"bits": 1}, [1] * 4),
        *([NAN, -0.25, 0.25, -0.25], [0, 0, 0, 1], [NAN, NAN]),
    ),
    "lsqplus-infinity": Edge(
        *(LSQPLUS, [-INF, INF, 0.0], (0.5, -0.25), {"bits": 1}, [1] * 3),
        *([-0.25, 0.25, -0.25], [0, 0, 1], [0.5, 2]),
    ),
    "seq-nan": Edge(
        *(SEQ, [[0.75, NAN], [0.75, 1.0]], ([0.5, 0.5],), {"levels": 4, "axis": 0}, ONES),
        *([[0.75, NAN], [0.75, 0.75]], [[1, 0], [1, 0]], [[NAN, 1.5]]),
    ),
    "seq-infinity": Edge(
        *(SEQ, [-INF, INF], (0.5,), {"levels": 3}, [1, 10]),
        *([-0.5, 0.5], [0, 0], [9]),
    ),
}


@each_backend
@each_dtype
@pytest.mark.parametrize("name", SPECIAL)
def test_nan_stays_nan_and_infinity_is_clipped(name, dtype, backend):
    """NaN has no input gradient; the parameters' gradient is NaN where they quantize one."""
    edge = SPECIAL[name]
    cases.require(edge.quantizer.name, backend, dtype)
    y, dx, *dparameters = edge.results(edge.parameters, dtype, backend)
    wanted_y = torch.tensor(edge.y, dtype=dtype)
    torch.testing.assert_close(y, wanted_y, rtol=0, atol=edge.atol, equal_nan=True)
    assert dx.tolist() == edge.dx
    for found, wanted in zip(dparameters, edge.dparameters, strict=True):
        torch.testing.assert_close(
            found, torch.tensor(wanted, dtype=found.dtype), rtol=0, atol=0, equal_nan=True
        )


def lsq_edge(step: float) -> Edge:
    s = 2.0**-30
    return Edge(
        *(LSQ, [-1.0, 0.0, s, 1.0], (step,), {"bits": 3, "signed": True}, [1, 2, 3, 5]),
        *([-4 * s, 0.0, s, 3 * s], [0, 2, 3, 0], None, (s,)),
    )


def pact_edge(alpha: float) -> Edge:
    s = 2.0**-30
    return Edge(
        *(PACT, [-1.0, s / 2, s, 1.0], (alpha,), {"bits": 1}, [1, 2, 4, 8]),
        *([0, 0, s, s], [0, 2, 0, 0], [12], (s,)),
    )


def ewgs_edge(upper: float) -> Edge:
    s = 2.0**-30
    return Edge(
        *(EWGS, [-1.0, 0.0, s / 2, 1.0], (0.0, upper), {"bits": 2}, [1] * 4),
        *([0, 0, 2 / 3, 1], [0, 1 / s, 1 / s, 0], None, (0.0, s)),
    )


def lsqplus_edge(step: float) -> Edge:
    s = 2.0**-30
    return Edge(
        *(LSQPLUS, [-1.0, 0.0, s, 1.0], (step, 0.0), {"bits": 3}, [1, 2, 3, 5]),
        *([0, 0, s, 7 * s], [0, 2, 3, 0], None, (s, 0.0)),
    )


def seq_edge(step: float) -> Edge:
    s = 2.0**-30
    return Edge(
        *(SEQ, [-1.0, 0.0, s, 1.0], (step,), {"levels": 4}, [1, 2, 3, 5]),
        *([-1.5 * s, 0.5 * s, 1.5 * s, 1.5 * s], [0, 2, 3, 0], None, (s,)),
    )


SMALL = {
    "lsq-0": lsq_edge(0.0),
    "lsq--0": lsq_edge(-0.0),
    "lsq-negative": lsq_edge(-0.5),
    "lsq-tiny": lsq_edge(2.0**-40),
    "pact-0": pact_edge(0.0),
    "pact-negative": pact_edge(-0.5),
    "pact-tiny": pact_edge(2.0**-40),
    "ewgs-0": ewgs_edge(0.0),
    "ewgs-negative": ewgs_edge(-1.0),
    "lsqplus-0": lsqplus_edge(0.0),
    "lsqplus-negative": lsqplus_edge(-0.5),
    "seq-0": seq_edge(0.0),
    "seq-negative": seq_edge(-0.5),
}


@each_backend
@pytest.mark.parametrize("name", SMALL)
def test_a_parameter_is_used_as_at_least_the_smallest(name, backend):
    edge = SMALL[name]
    cases.require(edge.quantizer.name, backend)
    results = edge.results(edge.parameters, torch.float32, backend)
    assert torch.equal(results[0], torch.tensor(edge.y).float())
    assert results[1].tolist() == edge.dx
    if edge.dparameters is not None:
        assert [float(d) for d in results[2:]] == edge.dparameters
    at_smallest = edge.results(edge.smallest, torch.float32, "reference")
    for result, wanted in zip(results, at_smallest, strict=True):
        assert torch.equal(result, wanted)


LONG = {
    "lsq": (LSQ, (0.21,), {"bits": 4, "signed": True}),
    "pact": (PACT, (0.7,), {"bits": 4}),
    "ewgs": (EWGS, (-0.7, 0.9), {"bits": 4}),
    "lsqplus": (LSQPLUS, (0.11, -0.7), {"bits": 4}),
    "seq": (SEQ, (0.9,), {"levels": 4}),
}


def long_sums():
    for name in LONG:
        for dtype in (torch.bfloat16, torch.float16):
            for backend in cases.BACKENDS:
                late = backend in cases.SIMULATED and (name, dtype) == ("lsq", torch.float16)
                marks = pytest.mark.slow if late else ()
                label = f"{name}-{cases.dtype_name(dtype)}-{backend}"
                yield pytest.param(name, dtype, backend, id=label, marks=marks)


@pytest.mark.parametrize(("name", "dtype", "backend"), list(long_sums()))
def test_parameter_gradient_of_a_million_16_bit_values(name, dtype, backend):
    quantizer, parameters, options = LONG[name]
    cases.require(quantizer.name, backend, dtype)
    x, g = (torch.randn(2**20).to(dtype) for _ in range(2))
    inputs = [x, *(torch.tensor(value) for value in parameters)]
    run, wide = quantizer.function, truth.in_double(inputs)
    _, _, *found = truth.with_gradients(run, inputs, g, backend=backend, **options)
    more = {"decide": torch.float32} if quantizer in (LSQ, LSQPLUS, SEQ) else {}
    _, _, *exact = truth.with_gradients(quantizer.oracle, wide, g.double(), **options, **more)
    for result, wanted in zip(found, exact, strict=True):
        torch.testing.assert_close(result.double(), wanted, rtol=1e-3, atol=0)


MASKED = {
    "pact": lambda x, signed, axis: (x, *PACT.parameters(x, axis), 4, signed, axis),
    "dorefa_activation": lambda x, signed, axis: (x, 4, signed),
}


@pytest.mark.parametrize("name", MASKED)
@each_combination(case=EACH_CASE, signed={"unsigned": False, "signed": True})
def test_mask_has_the_references_bits(case, signed, dtype, backend, name):
    cases.require(name, backend, dtype)
    x = case.make(dtype, scale=3.0 if name == "pact" else 1.0)
    forward = {b: _ops.overload(f"{name}_forward", b) for b in (backend, "reference")}
    for axis in PACT.axes(x) if name == "pact" else [None]:
        arguments = MASKED[name](x, signed, axis)
        assert torch.equal(forward[backend](*arguments)[1], forward["reference"](*arguments)[1])
