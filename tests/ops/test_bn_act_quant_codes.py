"""The codes of bn_act_quant are what ``codes_pack`` gives for its values, byte for byte."""

import itertools

import pytest
import torch
from torch import Tensor

from daqakd import InputError, _ops
from daqakd.functional import bn_act_quant

from ..helpers import cases
from ..helpers.cases import Case, each_backend, each_combination
from .test_bn_act_quant import LONG, SHAPES, Chain

pytestmark = pytest.mark.usefixtures("poisoned_empty")
BITS = (1, 2, 3, 8)  # slots of 1, 2, 4 and 8 bits
METHODS = tuple(_ops.METHOD_CODES)
OWN_SHAPES = {
    "7x7": Case("7x7", (3, 5, 7, 7)),  # channels share bytes but of 8 bits
    "1x1": Case("1x1", (3, 5, 1, 1)),
    "odd-columns": Case("odd-columns", (70, 37)),
    "wide-columns": Case("wide-columns", (3, 1101)),
    "8x8": Case("8x8", (3, 5, 8, 8)),
    "6x10": Case("6x10", (4, 6, 6, 10)),
    "4x4": Case("4x4", (5, 3, 4, 4)),
    "one-image": Case("one-image", (1, 1, 3, 5)),
}
MANY = {
    "groups-of-channels": Case("many", (3, 40, 32, 32)),
    "odd-groups": Case("odd", (6, 200, 7, 7)),
    "long-odd-runs": Case("long", (2, 3, 181, 101)),
}


def chains(first: int):
    """Return a chain of every width; methods, activations and modes take turns."""
    for turn in range(first, first + 4):
        bits, method = BITS[turn % 4], METHODS[(turn + turn // 4) % 4]
        signed = bits > 1 and turn % 3 == 0
        activation = "none" if signed else ("relu", "relu6")[turn % 2]
        yield Chain(method, activation, turn % 2 == 0, turn % 5 > 0, bits)


def packed(chain: Chain, y: Tensor, parameters: list[Tensor], backend: str) -> Tensor:
    """Return the codes of values by their own op."""
    level = parameters[0].detach() if chain.method in ("lsq", "pact") else None
    grid = level, _ops.METHOD_CODES[str(chain.method)], chain.bits, chain.signed
    return _ops.overload("codes_pack", backend)(y.detach(), *grid)


def check(chain: Chain, case: Case, dtype: torch.dtype, backend: str) -> None:
    """Compare the codes with those of their own op."""
    inputs = chain.inputs(case.make(dtype))
    y, _, codes = chain.run(inputs, chain.running(inputs[0]), backend, with_codes=True)
    assert torch.equal(codes, packed(chain, y, chain.split(inputs)[4], "reference"))


def check_all(chain: Chain, case: Case, dtype: torch.dtype, backend: str) -> None:
    """Compare what comes with the codes, too, with what comes without."""
    check(chain, case, dtype, backend)
    inputs = [x.detach().requires_grad_() for x in chain.inputs(case.make(dtype))]
    found = chain.run(inputs, chain.running(inputs[0]), backend, with_codes=True)
    wanted = chain.run(inputs, chain.running(inputs[0]), backend)
    assert not found[2].requires_grad
    grads = [x.detach() for x in wanted]
    for results in zip(found[:2], wanted, strict=True):
        assert torch.equal(*results)
    for results in zip(
        torch.autograd.grad(found[:2], inputs, grads),
        torch.autograd.grad(wanted, inputs, grads),
        strict=True,
    ):
        assert torch.equal(*results)


@each_combination(case=SHAPES | OWN_SHAPES)
def test_every_layout(case, dtype, backend):
    cases.require("bn_act_quant", backend, dtype)
    most = {"triton": 1, "emulated": 2}.get(backend, 4)
    for chain in itertools.islice(chains(sum(case.base)), most):
        check(chain, case, dtype, backend)


@pytest.mark.parametrize("backend", ["reference", "native", "emulated"])
@pytest.mark.parametrize("case", ["images", "channels-last", "short-runs"])
def test_the_rest_is_the_same_with_and_without(case, backend):
    cases.require("bn_act_quant", backend)
    for chain in chains(len(case)):
        check_all(chain, SHAPES[case], torch.float32, backend)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bytes(threads):
    cases.require("bn_act_quant", "native")
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for case in (LONG | MANY).values():
            for chain in chains(threads):
                check(chain, case, torch.bfloat16, "native")
    finally:
        torch.set_num_threads(before)


@each_backend
def test_not_a_number_has_the_lowest_code(backend):
    cases.require("bn_act_quant", backend)
    x = torch.randn(4, 3, 5, 5)
    x[1, 1, 2, 2], x[0, 2, 0, 0] = float("nan"), float("inf")
    step = torch.tensor(0.3)
    options: dict = {"activation": "none", "method": "lsq", "parameters": (step,), "bits": 8}
    y, codes = bn_act_quant(x, signed=True, with_codes=True, backend=backend, **options)
    assert y[:, 1:].isnan().all()
    assert torch.equal(codes.view(4, 3, 5, 5)[:, 1:], torch.zeros(4, 2, 5, 5, dtype=torch.uint8))
    assert codes.view(4, 3, 5, 5)[:, 0].any()


@each_backend
def test_values_beyond_the_largest_number_have_the_highest_code(backend):
    """Of a step whose double overflows: what is stored decides, as for codes_pack."""
    cases.require("bn_act_quant", backend)
    chain, step = Chain("lsq", bits=2), torch.tensor(3e38)
    x = torch.randn(5, 3, 8) * 10
    y, codes = bn_act_quant(
        *(x, None, None, torch.full((3,), 3e38)),
        method="lsq", parameters=(step,), bits=2, with_codes=True, backend=backend,
    )  # fmt: skip
    assert y.isinf().any()
    assert torch.equal(codes, packed(chain, y, [step], "reference"))


@each_backend
def test_an_empty_batch_has_no_codes(backend):
    cases.require("bn_act_quant", backend)
    y, codes = bn_act_quant(torch.zeros(0, 3), method="dorefa", with_codes=True, backend=backend)
    assert (y.shape, codes.shape, codes.dtype) == ((0, 3), (0,), torch.uint8)


@each_backend
def test_direct_calls_are_checked(backend):
    cases.require("bn_act_quant", backend)
    op = _ops.overload("bn_act_quant_forward", backend)
    norm = (None,) * 5, (True, 0.1, None, 1e-5, 1)
    with pytest.raises((RuntimeError, ValueError), match="with_codes: method 0 has no codes"):
        op(torch.randn(4, 3), *norm[0], *norm[1], 0, None, None, 8, False, False, True)


def test_compiled_functions_give_the_same_codes():
    x, alpha = torch.randn(4, 3, 5), torch.tensor(1.5)

    def function(x: Tensor, alpha: Tensor) -> Tensor:
        options: dict = {"method": "pact", "parameters": (alpha,), "bits": 4}
        return bn_act_quant(x, with_codes=True, **options)

    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x, alpha)[1], function(x, alpha)[1])


class Exported(torch.nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return bn_act_quant(x, method="dorefa", with_codes=True)[0]


def test_an_exported_program_has_none():
    with pytest.raises((InputError, RuntimeError), match="an exported program has no codes"):
        torch.export.export(Exported(), (torch.randn(4, 3, 5),))
