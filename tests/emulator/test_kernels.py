"""The CUDA kernels in several orders of threads and blocks, against the native CPU's bits."""

import itertools

import pytest
import torch
from torch import Tensor

from daqakd import _ops
from daqakd._cmi import from_limbs
from daqakd.functional.cmi import new_state

from ..helpers import cases
from ..helpers.plans import (
    every_row,
    example_plan,
    one_of_each,
    op_arguments,
    random_pixels,
)
from ..helpers.runs import RUNS, SHAPES, SMALL
from ..helpers.samples import SAMPLES, runnable, samples, tensors
from . import build
from .backend import emulator

pytestmark = pytest.mark.skipif(build.impossible() is not None, reason=str(build.impossible()))
ORDERS = (0, 1, 7)  # forwards, backwards, at random
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def bits(x: Tensor) -> bytes:
    return x.detach().contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def same_bits_in_every_order(run) -> list[Tensor]:
    """Run once in each order and return the results, which must be the same, memory included."""
    results = []
    for order in ORDERS:
        with emulator().ordered(order):
            results.append(tensors(run()))
        assert emulator().living_tensors() == 0
    for result in results[1:]:
        for a, b in zip(results[0], result, strict=True):
            assert a.stride() == b.stride()
            assert bits(a) == bits(b), "another order of threads gives other bits"
    return results[0]


@pytest.mark.parametrize("name", SAMPLES)
def test_order_of_threads_and_blocks(name):
    op = runnable(name, "emulated")
    for arguments in samples(name, "emulated"):

        def run(op=op, arguments=arguments):
            if name != "cmi_update":
                return op(*arguments)
            state = arguments[0].clone()
            op(state, *arguments[1:])
            return state

        same_bits_in_every_order(run)


def cuts():
    """Every way to cut the work with every op; small, and one dtype each, in the ordinary run."""
    for (i, op), (j, name) in itertools.product(enumerate(RUNS), enumerate((*SMALL, *SHAPES))):
        for d, dtype in enumerate(DTYPES):
            marks = pytest.mark.slow if d != (i + j) % 3 or name in SHAPES else ()
            label = f"{op}-{name}-{cases.dtype_name(dtype)}"
            yield pytest.param(op, name, dtype, id=label, marks=marks)


# outputs that are the native CPU's bits; the others are sums, or take other exponentials
EXACT = {
    "lsq": (0, 1),
    "pact": (0, 1, 2),
    "dorefa_activation": (0, 1, 2),
    "dorefa_weight": (4, 5, 6),
    "ewgs": (0, 1),
    "lsqplus": (0, 1),
    "seq": (0, 1, 3, 4),
    "codes": range(4),
    "cmi": range(5),
    "kd_loss": (),
    "bn_act_quant": (3, 6, 7, 8, 9, 11, 15, 16, 17, 18, 19),
}


@pytest.mark.parametrize(("op", "name", "dtype"), list(cuts()))
def test_every_way_to_cut_the_work(op, name, dtype):
    found = same_bits_in_every_order(lambda: RUNS[op](name, dtype, "emulated"))
    wanted = RUNS[op](name, dtype, "native")
    for place, (a, b) in enumerate(zip(found, wanted, strict=True)):
        if place in EXACT[op]:
            assert torch.equal(a, b)
        else:
            assert_near(a, b, terms=found[0].numel())


def assert_near(a: Tensor, b: Tensor, terms: int) -> None:
    """Compare what differs by the order of so many terms, and by a rounding to 16 bits."""
    eps = torch.finfo(a.dtype).eps
    assert torch.equal(a.isnan(), b.isnan())
    rtol, atol = 1e-4 + 2 * eps, 1e-6 * terms**0.5 + eps
    torch.testing.assert_close(a, b, rtol=rtol, atol=atol, equal_nan=True)


def test_every_op_has_an_emulated_kernel():
    emulator()
    assert _ops.implemented("emulated", "cpu") == _ops.implemented("native", "cpu")


@pytest.mark.parametrize("mix", [None, "cutmix"])
def test_images_beyond_shared_memory(mix):
    """Their workspaces are in global memory, and blocks take several rows."""
    plan, pixels = example_plan(3, 3, 1, mix), random_pixels(3, 110, 107)
    arguments = op_arguments(plan, pixels, torch.float16, channels_last=True)
    (found,) = same_bits_in_every_order(lambda: _ops.overload("augment", "emulated")(*arguments))
    assert torch.equal(found, _ops.overload("augment", "native")(*arguments))


def test_kd_loss_with_labels_counted_by_another_launch():
    """Beyond 2^21 reads of labels; the mean is over those that are not ignored."""
    z, t = torch.randn(11_700, 2), torch.randn(11_700, 2)
    labels = torch.arange(len(z)) % 3 - 1
    arguments = z, t, labels, 4.0, 1.0, 2.0, None, None, None, 0.0, -1, 1, False
    found = same_bits_in_every_order(
        lambda: _ops.overload("kd_loss_forward", "emulated")(*arguments)[:2]
    )
    wanted = _ops.overload("kd_loss_forward", "native")(*arguments)
    for a, b in zip(found, wanted[:2], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


def test_many_partial_sums():
    """More than a warp takes at once; a block adds up those of a single tensor."""
    x, g, step = torch.randn(600_001), torch.randn(600_001), torch.tensor(0.3)
    single = _ops.overload("lsq_backward", "emulated")(g, x, step, -8, 7, None, 0, 1.0)
    arguments = [g], [x], [step], [-8], [7], 0, [1.0]
    many = _ops.overload("lsq_many_backward", "emulated")(*arguments)
    assert bits(many[0][0]) == bits(single[0])
    assert bits(many[1][0]) == bits(single[1])


def test_every_kind_of_operation_on_images():
    """Large enough for a table of equalize that is not the identity."""
    pixels = torch.cat([random_pixels(1, 30, 31), random_pixels(2, 30, 31)[:1] // 3])
    arguments = op_arguments(every_row(one_of_each(), 2), pixels, torch.uint8)
    (found,) = same_bits_in_every_order(lambda: _ops.overload("augment", "emulated")(*arguments))
    assert torch.equal(found, _ops.overload("augment", "native")(*arguments))


@pytest.mark.parametrize("mix", [None, "cutmix"])
def test_more_images_than_blocks(mix):
    """Each block takes every 4096th row."""
    plan, pixels = example_plan(4_100, 1, 1, mix), random_pixels(4_100, 1, 1)
    arguments = op_arguments(plan, pixels, torch.float16)
    found = _ops.overload("augment", "emulated")(*arguments)
    assert torch.equal(found, _ops.overload("augment", "native")(*arguments))


def test_cmi_counts_labels_and_groups_out_of_range_as_invalid():
    """Nothing can be read back before the launch, so a kernel meets what the CPU refuses."""
    z, state = torch.randn(5, 4), new_state(4, 2)
    labels, groups = torch.tensor([1, 99, -1, 2, 3]), torch.tensor([0, 0, 0, 7, 1])
    _ops.overload("cmi_update", "emulated")(state, z, labels, None, groups)
    invalid = from_limbs(state)[..., -1]
    assert invalid.tolist() == [[2.0, 0.0, 1.0, 0.0], [0.0] * 4]
