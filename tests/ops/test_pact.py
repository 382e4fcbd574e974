from functools import partial

import pytest
import torch

from daqakd import _ops
from daqakd.functional import pact

from ..helpers import cases, tolerance, truth
from ..helpers.cases import double, each_backend, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@pytest.mark.parametrize(
    ("bits", "value"),
    [(2, [0, 0, 0.333333, 0.666667, 1, 1]), (4, [0, 0, 0.2, 0.533333, 1, 1])],
)
def test_paper_vector(bits, value):
    inputs = double(-1, 0, 0.2, 0.5, 1, 2), torch.tensor(1.0, dtype=torch.float64)
    y, dx, dalpha = truth.with_gradients(pact, inputs, double(1, -1, 2, 1, -2, 1), bits=bits)
    torch.testing.assert_close(y, double(*value), rtol=0, atol=1e-6)
    assert dx.tolist() == [0, 0, 2, 1, 0, 0]
    assert float(dalpha) == -1


def test_signed_takes_the_gradient_away_below():
    inputs = double(-3, -1, -0.4, 0.4, 1, 3), torch.tensor(1.0, dtype=torch.float64)
    g = double(1, 2, 4, 8, 16, 32)
    y, dx, dalpha = truth.with_gradients(pact, inputs, g, bits=3, signed=True)
    torch.testing.assert_close(y * 3, double(-3, -3, -1, 1, 3, 3))
    assert dx.tolist() == [0, 0, 4, 8, 0, 0]
    assert float(dalpha) == 16 + 32 - 1 - 2


@each_backend
@each_dtype
@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_is_exact_at_the_clipping_level(signed, dtype, backend):
    cases.require("pact", backend, dtype)
    x = torch.tensor([-2, -1.5, -1, -0.0, 0.0, 1, 1.5, 2], dtype=dtype)
    inputs = x, torch.tensor(1.5, dtype=cases.parameter_dtype(dtype))
    g = 2.0 ** torch.arange(8).to(dtype)
    results = truth.with_gradients(partial(pact, backend=backend), inputs, g, bits=3, signed=signed)
    exact = truth.with_gradients(
        truth.pact, truth.in_double(inputs), g.double(), bits=3, signed=signed
    )
    tolerance.check_close(results[0], exact[0])
    assert torch.equal(results[1].double(), exact[1])
    assert float(results[2]) == float(exact[2])


@pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
def test_alpha_gradient_is_the_slope_with_codes_frozen(signed):
    """The rounding residual is held while alpha moves: only clipped elements follow alpha."""
    x, g = torch.randn(99, dtype=torch.float64), torch.randn(99, dtype=torch.float64)
    alpha = torch.tensor(0.8, dtype=torch.float64)
    *_, dalpha = truth.with_gradients(pact, (x, alpha), g, bits=3, signed=signed)

    def clipped(a: float) -> torch.Tensor:
        return (g * x.clamp(-a if signed else 0.0, a)).sum()

    slope = (clipped(0.8 + 1e-7) - clipped(0.8 - 1e-7)) / 2e-7
    torch.testing.assert_close(dalpha, slope, rtol=1e-6, atol=1e-6)


def mask_of(x: torch.Tensor, backend: str, signed: bool = False) -> list[int]:
    return _ops.overload("pact_forward", backend)(x, torch.tensor(1.0), 4, signed, None)[1].tolist()


@each_backend
def test_mask_has_two_bits_per_element_low_bits_first(backend):
    cases.require("pact", backend)
    x = torch.tensor([-1.0, 0.5, 1.0, float("nan"), 2.0, 0.25])
    assert mask_of(x, backend) == [0b11_10_01_00, 0b00_00_01_10]
    assert mask_of(-x, backend, signed=True) == [0b11_00_01_10, 0b00_00_01_00]


@each_backend
def test_mask_is_in_memory_order(backend):
    cases.require("pact", backend)
    rows = torch.tensor([[0.5, 2.0, -1.0], [2.0, 2.0, 0.5]])
    in_order = [0b10_00_10_01, 0b00_00_01_10]
    assert mask_of(rows, backend) == in_order
    assert mask_of(rows.t(), backend) == in_order
    assert mask_of(rows.t().contiguous(), backend) == [0b10_10_10_01, 0b00_00_01_00]
    images = rows.reshape(1, 1, 2, 3).permute(0, 3, 1, 2)
    assert mask_of(images, backend) == in_order


@each_backend
def test_mask_of_an_expanded_input_has_every_element(backend):
    cases.require("pact", backend)
    assert mask_of(torch.tensor([[0.5], [2.0]]).expand(2, 3), backend) == [0b10_01_01_01, 0b10_10]


@each_backend
def test_mask_of_nothing_is_empty(backend):
    cases.require("pact", backend)
    assert mask_of(torch.zeros(0, 3), backend) == []


def eager(x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
    """Four bits by the chain of operations that the paper's equations are."""
    levels = 15 / alpha
    y = torch.minimum(torch.clamp(x, min=0), alpha) * levels
    return ((torch.round(y) - y).detach() + y) / levels


@each_backend
@each_dtype
def test_saves_a_twelfth_of_the_eager_chain(dtype, backend, record_property):
    cases.require("pact", backend, dtype)
    count = 2**14
    x = torch.randn(count).to(dtype).requires_grad_()
    alpha = torch.tensor(1.1, dtype=dtype, requires_grad=True)
    saved = cases.saved_bytes(lambda: pact(x, alpha, bits=4, backend=backend))
    chain = cases.saved_bytes(lambda: eager(x, alpha))
    record_property(f"saved bytes of {count} elements, PACT and the eager chain", (saved, chain))
    assert saved == count // 4 + alpha.element_size()
    assert saved * 12 <= chain
