"""Quantized values as packed codes: the same bits come back, for every level of every method."""

import pytest
import torch
from torch import Tensor

from daqakd._ops import METHOD_CODES, overload, slot_bits

from ..helpers import cases, truth
from ..helpers.cases import each_backend, each_case, each_dtype, parameter_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
WIDTHS = {
    f"{bits}-{'signed' if signed else 'unsigned'}": (bits, signed)
    for bits in range(1, 9)
    for signed in ((False, True) if bits > 1 else (False,))
}
# such that 256 levels crowd in 16 bits, vanish in float16, overflow float16, overflow float32
STEPS = (1.0, 0.21, 1.5951, 1.4345, 2.0**-24, 1e-7, 0.0, -1.0, 300.0, 3e38)
Grid = tuple[Tensor | None, int, int, bool]  # as the ops take it


def grid_of(method: str, bits: int, signed: bool, dtype: torch.dtype, step: float = 1.0) -> Grid:
    parameter = torch.tensor(step, dtype=parameter_dtype(dtype))
    given = parameter if method in ("lsq", "pact") else None
    return given, METHOD_CODES[method], bits, signed


def quantized(x: Tensor, parameter: Tensor | None, method: int, bits: int, signed: bool) -> Tensor:
    """Return what the quantizers make of ``x``."""
    name = tuple(METHOD_CODES)[method - 1]
    if name == "lsq":
        codes = truth.code_range(bits, signed)
        return overload("lsq_forward", "reference")(x, parameter, *codes, None)
    if name == "pact":
        return overload("pact_forward", "reference")(x, parameter, bits, signed, None)[0]
    if name == "dorefa":
        return overload("dorefa_activation_forward", "reference")(x, bits, signed)[0]
    ends = (torch.tensor(end, dtype=parameter_dtype(x.dtype)) for end in (0.0, 1.0))
    return overload("ewgs_forward", "reference")(x, *ends, bits)


def every_level(dtype: torch.dtype, grid: Grid) -> Tensor:
    """Return the quantizer's values at all levels and beyond; of float32 inputs, too, then cast."""
    parameter, method, bits, signed = grid
    unit = 1.0 if parameter is None else max(float(parameter), 2.0**-30)
    if method != METHOD_CODES["lsq"]:
        unit /= truth.level_count(bits, signed)
    x = torch.arange(-140, 260, dtype=torch.float64) * unit
    inputs = (dtype,) if dtype == torch.float64 else (dtype, torch.float32)
    return torch.cat([quantized(x.to(own), *grid).to(dtype) for own in inputs])


def same_bits(a: Tensor, b: Tensor) -> Tensor:
    return (a == b) & (a.signbit() == b.signbit())


def round_trip(y: Tensor, grid: Grid, backend: str) -> Tensor:
    codes = overload("codes_pack", backend)(y, *grid)
    assert codes.shape == (-(-y.numel() * slot_bits(grid[2]) // 8),)
    return overload("codes_unpack", backend)(codes, *grid, y.numel(), y.dtype)


@cases.each_combination(method={name: name for name in METHOD_CODES}, width=WIDTHS)
def test_every_level_comes_back_with_its_bits(method, width, dtype, backend):
    cases.require("codes", backend, dtype)
    bits, signed = width[0], width[1] and method != "ewgs"
    for step in STEPS if method in ("lsq", "pact") else (1.0,):
        grid = grid_of(method, bits, signed, dtype, step)
        y = every_level(dtype, grid)
        z = round_trip(y, grid, backend)
        assert (same_bits(y, z) | y.isnan()).all(), (step, y[~same_bits(y, z)])


@each_dtype
def test_all_steps_of_a_binade_come_back(dtype):
    """8 bits are the most that 16-bit numbers are crowded by, whatever the step is."""
    for step in 1 + torch.arange(0, 1, 2.0**-9):
        grid = grid_of("lsq", 8, False, dtype, float(step))
        y = every_level(dtype, grid)
        for backend in ("reference", "native"):
            cases.require("codes", backend, dtype)
            assert same_bits(y, round_trip(y, grid, backend)).all()


@each_backend
@each_dtype
@each_case
def test_any_layout_packs_in_memory_order(case, dtype, backend):
    cases.require("codes", backend, dtype)
    grid = grid_of("lsq", 3, True, dtype, 0.5)
    y = quantized(case.make(dtype), *grid)
    in_order = torch.empty_like(y).copy_(y)
    order = sorted(range(y.dim()), key=in_order.stride, reverse=True)
    flat = in_order.permute(order).reshape(-1)
    z = round_trip(y, grid, backend)
    assert z.shape == (y.numel(),)
    assert same_bits(z, flat).all()
    assert torch.equal(z.as_strided(y.shape, in_order.stride()), y)


@each_backend
def test_slots_hold_codes_from_the_lowest_on_low_bits_first(backend):
    cases.require("codes", backend)
    pack, nan = overload("codes_pack", backend), float("nan")
    y = torch.tensor([0.0, 3.0, nan, 1.0, 2.0])
    one = torch.tensor(1.0)
    assert pack(y, one, 1, 2, False).tolist() == [0b01_00_11_00, 0b10]
    assert pack(y, one, 1, 3, False).tolist() == [0x30, 0x10, 0x02]
    assert pack(y, one, 1, 6, False).tolist() == [0, 3, 0, 1, 2]
    assert pack(y, one, 1, 3, True).tolist() == [0x74, 0x50, 0x06]  # the lowest is -4
    assert pack(y, 3 * one, 2, 3, True).tolist() == [0x63, 0x40, 0x05]  # the lowest is -3
    signs = torch.tensor([1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 1.0, 1.0])
    assert pack(signs, None, 4, 1, False).tolist() == [0b10001101, 1]


@each_backend
def test_numbers_that_no_quantizer_gives_become_the_nearest_level(backend):
    cases.require("codes", backend, torch.bfloat16)
    infinity = float("inf")
    y = torch.tensor([-infinity, -9.0, -0.6, -0.4, -0.0, 0.4, 9.0, infinity], dtype=torch.bfloat16)
    found = round_trip(y, grid_of("lsq", 3, True, y.dtype), backend)
    assert found.tolist() == [-4, -4, -1, 0, 0, 0, 3, 3]
    assert not found[4].signbit()


@each_backend
@each_dtype
def test_misaligned_codes_and_values(dtype, backend):
    cases.require("codes", backend, dtype)
    grid = grid_of("dorefa", 4, True, dtype)
    y = quantized(torch.linspace(-1, 1, 77).to(dtype), *grid)
    codes = overload("codes_pack", backend)(cases.off_by_one_element(y), *grid)
    assert torch.equal(codes, overload("codes_pack", backend)(y, *grid))
    moved = cases.off_by_one_element(codes)
    assert torch.equal(overload("codes_unpack", backend)(moved, *grid, 77, dtype), y)


ONE, TWO = torch.ones(1), torch.ones(2)
PACK: dict = {"y": torch.zeros(9), "parameter": ONE, "method": 1, "bits": 4, "signed": False}
SOME = torch.zeros(5, dtype=torch.uint8)
UNPACK: dict = {"codes": SOME, **PACK, "count": 9, "dtype": torch.float32}
del UNPACK["y"]
GRID_ERRORS = [
    ({"method": 5}, "method: expected a code of 1 to 4, got 5"),
    ({"method": 0}, "method: expected a code of 1 to 4, got 0"),
    ({"bits": 9}, "bits: expected 1 to 8, got 9"),
    ({"bits": 1, "signed": True}, "bits: expected 2 to 8, got 1"),
    ({"method": 4, "parameter": None, "signed": True}, "signed: ewgs has no signed codes"),
    ({"parameter": None}, "parameter: expected a step for lsq"),
    ({"method": 3}, "parameter: expected a step for lsq.* None for dorefa"),
    ({"parameter": TWO}, "parameter: expected 1 values?, got 2"),
    ({"parameter": ONE.int()}, "parameter: expected float16"),
]
PACK_ERRORS = [({"y": torch.zeros(9).int()}, "y: expected float16")]
UNPACK_ERRORS = [
    ({"count": 11}, "codes: expected"),
    ({"count": -1}, "codes: expected"),
    ({"count": 2**62}, "codes: expected"),
    ({"bits": 5}, "codes: expected"),
    ({"codes": torch.zeros(5)}, "codes: expected"),
    ({"codes": SOME[None]}, "codes: expected"),
    ({"codes": torch.zeros(10, dtype=torch.uint8)[::2]}, "codes: expected"),
    ({"dtype": torch.int32}, "dtype: expected a floating-point type"),
]


@each_backend
@pytest.mark.parametrize(
    ("op", "change", "message"),
    [("codes_pack", *row) for row in GRID_ERRORS + PACK_ERRORS]
    + [("codes_unpack", *row) for row in GRID_ERRORS + UNPACK_ERRORS],
)
def test_direct_calls_are_checked(op, change, message, backend):
    cases.require("codes", backend)
    whole = PACK if op == "codes_pack" else UNPACK
    with pytest.raises((RuntimeError, ValueError), match=message):
        overload(op, backend)(*(whole | change).values())
