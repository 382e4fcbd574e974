"""What the interpreter of these tests refuses; run by ``test_interpreter.py`` in its process."""

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("runs where Triton is interpreted", allow_module_level=True)

import triton
from triton import language as tl


@triton.jit
def copy_kernel(x, y, count, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at, mask=at < count), mask=at < count)


@triton.jit
def sum_kernel(x, out, count, BLOCK: tl.constexpr):
    at = tl.arange(0, BLOCK)
    tl.store(out, tl.sum(tl.load(x + at, mask=at < count), 0))


@triton.jit
def order_kernel(order, counter):
    place = tl.atomic_add(counter, 1)
    tl.store(order + place, tl.program_id(0))


def test_accesses_inside_pass():
    x, y = torch.randn(60), torch.zeros(60)
    copy_kernel[(4,)](x, y, 60, BLOCK=16)
    assert torch.equal(x, y)


@pytest.mark.parametrize(("read", "written", "verb"), [(59, 60, "read"), (60, 59, "write")])
def test_accesses_outside_are_refused(read, written, verb):
    """The memory behind a view is not the tensor's own."""
    x, y = torch.randn(64)[:read], torch.zeros(64)[:written]
    with pytest.raises(Exception, match=f"1 elements to {verb} are of no tensor"):
        copy_kernel[(4,)](x, y, 60, BLOCK=16)


def test_what_a_mask_leaves_out_is_undefined():
    out = torch.zeros(1)
    sum_kernel[(1,)](torch.ones(5), out, 5, BLOCK=8)
    assert out.isnan()


def test_programs_run_in_no_order_to_rely_on():
    orders = set()
    for _ in range(3):
        order, counter = torch.zeros(20, dtype=torch.int32), torch.zeros(1, dtype=torch.int32)
        order_kernel[(20,)](order, counter)
        assert sorted(order.tolist()) == list(range(20))
        orders.add(tuple(order.tolist()))
    assert len(orders) == 3
