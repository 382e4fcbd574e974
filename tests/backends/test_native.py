"""What only the compiled libraries promise: bits that depend on shape alone."""

import functools
import hashlib
import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from daqakd.backends import native
from daqakd.functional import lsq

from ..helpers import cases
from ..helpers.cases import each_dtype
from ..helpers.machine import each_instruction_set, printed_by, with_threads
from ..helpers.runs import RUNS, SHAPES, inputs, run_lsq

pytestmark = pytest.mark.skipif(native.FAILURES["cpu"] is not None, reason=str(native.FAILURES))
each_shape = pytest.mark.parametrize("name", SHAPES)
each_op = pytest.mark.parametrize("op", RUNS)


def bits(tensors: list[Tensor]) -> list[bytes]:
    return [tensor.reshape(-1).view(torch.uint8).numpy().tobytes() for tensor in tensors]


@each_op
@each_shape
@each_dtype
def test_any_number_of_threads_gives_the_same_bits(name, dtype, op):
    results = with_threads(lambda: bits(RUNS[op](name, dtype)))
    assert all(result == results[0] for result in results)


@functools.cache
def digest() -> str:
    whole = hashlib.sha256()
    for op, name, dtype in itertools.product(RUNS, SHAPES, cases.DTYPES):
        whole.update(b"".join(bits(RUNS[op](name, dtype))))
    return whole.hexdigest()


@each_instruction_set
def test_any_instruction_set_gives_the_same_bits(instruction_set):
    code = "from tests.backends import test_native; print(test_native.digest())"
    assert printed_by(code, DAQAKD_CPU=instruction_set) == digest()


@each_shape
@each_dtype
def test_every_way_to_cut_lsq_agrees_with_the_reference(name, dtype):
    x, step, axis = inputs(name, dtype)
    y, dx, ds = run_lsq(name, dtype)
    wanted_y = torch.ops.daqakd.lsq_forward.reference(x, step, -8, 7, axis)
    wanted_dx, _ = torch.ops.daqakd.lsq_backward.reference(x.flip(0), x, step, -8, 7, axis, 0, 0.5)
    assert torch.equal(y, wanted_y)
    assert torch.equal(dx, wanted_dx)
    v = x.to(step.dtype) / (
        step if axis is None else step[(slice(None), *(None,) * (x.dim() - 1 - axis))]
    )
    code = torch.round(v.clamp(-8, 7)).double()
    inside = (v >= -8) & (v <= 7)
    terms = x.flip(0).double() * (code - torch.where(inside, v, 0.0).double())
    others = [d for d in range(x.dim()) if d != axis]
    exact = 0.5 * (terms.sum() if axis is None else terms.sum(others))
    size = 0.5 * (terms.abs().sum() if axis is None else terms.abs().sum(others))
    assert ((ds.double() - exact).abs() <= 1e-6 * size + 1e-6).all()


@each_shape
@each_dtype
@pytest.mark.parametrize("op", ["pact", "dorefa_activation", "ewgs", "lsqplus", "seq", "codes"])
def test_every_way_to_cut_agrees_with_the_reference(name, dtype, op):
    """Exactly, but for the sums over the whole tensor, which only differ in their order."""
    results, wanted = RUNS[op](name, dtype), RUNS[op](name, dtype, "reference")
    for result, value in zip(results, wanted, strict=True):
        if result.dim() == value.dim() and result.numel() * 4 >= inputs(name, dtype)[0].numel():
            assert torch.equal(result, value)
        else:
            scale = inputs(name, dtype)[0].numel() ** 0.5
            torch.testing.assert_close(result, value, rtol=1e-4, atol=1e-6 * scale)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=cases.dtype_name)
def test_step_gradient_of_4_million_16_bit_values(dtype):
    """An eager chain in bfloat16 is off by more than the value itself."""
    generator = torch.Generator().manual_seed(3)
    x, g = (torch.randn(2**22, generator=generator).to(dtype) for _ in range(2))
    step = torch.tensor(0.21)
    _, ds = torch.ops.daqakd.lsq_backward.native(g, x, step, -8, 7, None, 0, 1.0)
    v = x.float() / step
    inside = (v >= -8) & (v <= 7)
    code = torch.round(v.clamp(-8, 7)).double()
    exact = (g.double() * (code - torch.where(inside, v, 0.0).double())).sum()
    torch.testing.assert_close(ds.double(), exact, rtol=1e-3, atol=0)


@each_op
@each_dtype
def test_every_element_is_written(dtype, op, monkeypatch):
    """Deterministic mode fills what the library allocates with NaN."""
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True)
    try:
        for name in SHAPES:
            assert all(torch.isfinite(result).all() for result in RUNS[op](name, dtype))
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("start", [0, 1, 2, 3])
@each_dtype
def test_misaligned_memory_gives_the_same_values(start, dtype):
    base = torch.arange(200, dtype=torch.float64).sub(100).div(7).to(dtype)
    step = torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
    forward = torch.ops.daqakd.lsq_forward
    x = base[start : start + 131]
    assert torch.equal(
        forward.native(x, step, -8, 7, None), forward.native(x.clone(), step, -8, 7, None)
    )


@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_whole_and_for_any_shape(dynamic):
    def function(x, step):
        return lsq(x, step, bits=4, signed=True, backend="native")

    compiled = torch.compile(function, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for size in (5, 70, 129):
        x, step = torch.randn(size, requires_grad=True), torch.tensor(0.3, requires_grad=True)
        expected = torch.autograd.grad(function(x, step).square().sum(), (x, step))
        result = torch.autograd.grad(compiled(x, step).square().sum(), (x, step))
        assert all(map(torch.equal, result, expected))


def test_direct_calls_are_checked():
    forward, backward = torch.ops.daqakd.lsq_forward.native, torch.ops.daqakd.lsq_backward.native
    x, step = torch.zeros(3, 4), torch.ones(4)
    with pytest.raises(RuntimeError, match="step: expected 3 values, got 4"):
        forward(x, step, -8, 7, 0)
    with pytest.raises(RuntimeError, match="axis: expected a dimension of the 2-D input, got 2"):
        forward(x, step, -8, 7, 2)
    with pytest.raises(RuntimeError, match="grad: expected the shape of the input"):
        backward(torch.zeros(4, 3), x, step, -8, 7, 1, 0, 1.0)
    with pytest.raises(RuntimeError, match="x: expected float16, bfloat16, float32 or float64"):
        forward(x.int(), step, -8, 7, 1)


def test_direct_calls_with_a_mask_are_checked():
    ops, g = torch.ops.daqakd, torch.zeros(3, 4)
    with pytest.raises(RuntimeError, match=r"mask: expected 3 contiguous bytes .* got 2"):
        ops.pact_backward.native(g, g.new_zeros(2, dtype=torch.uint8), g[0, 0], False, None)
    with pytest.raises(RuntimeError, match=r"mask: expected 2 contiguous bytes .* of Float"):
        ops.dorefa_activation_backward.native(g, torch.zeros(2))
    with pytest.raises(RuntimeError, match="bits: expected 2 to 8, got 1"):
        ops.dorefa_activation_forward.native(g, 1, True)


def test_the_kernels_division_rounds_as_the_hosts():
    """CUDA divides by a corrected reciprocal; the same function runs here."""
    host = pytest.importorskip("daqakd._host")
    rng = np.random.default_rng(0)
    for exponent in rng.uniform(-30, 20, 40):
        step = np.float32(2.0**exponent)
        ties = (rng.integers(-512, 512, 20_000) / 2).astype(np.float32) * step
        anything = rng.integers(0, 2**32, 20_000, dtype=np.uint32).view(np.float32)
        x = np.concatenate([ties, np.nextafter(ties, np.float32(0)), anything])
        x = x[(np.abs(x) >= 2.0**-100) | (x == 0) | np.isnan(x)]
        with np.errstate(all="ignore"):
            result, wanted = host.quotient(x, step), x / step
        near = np.abs(wanted) <= 2**19
        assert np.array_equal(result[near], wanted[near])
        assert np.array_equal(np.isnan(result), np.isnan(wanted))
        assert (np.abs(result[np.abs(wanted) > 2**19]) > 2**18).all()
