"""The emulator itself: kernels that break one rule each are reported with their line."""

import re
from pathlib import Path

import pytest
import torch

from . import build
from .backend import Emulator

PROBES = Path(__file__).parent / "probes"
SOURCE = PROBES / "cuda" / "faults.cuh"
SIZE = 256
# what the report says of each fault
FAULTS = {
    "race": "race: |shared memory read before it was written",
    "race_after_read": "race: ",
    "race_within_a_warp": "race: |shared memory read before it was written",
    "race_between_blocks": "race between blocks: write",
    "missing_fence": "race between blocks: read",
    "no_fence_after": "race between blocks: read",
    "write_by_another_thread": "race between blocks: read",
    "beyond_the_end": "out of bounds: write",
    "before_the_start": "out of bounds: read",
    "misaligned": "misaligned: read of 16 bytes",
    "misaligned_store": "misaligned: write of 16 bytes",
    "through_const": "write through a const pointer",
    "undefined_shared": "shared memory read before it was written",
    "undefined_scratch": "read before it was written",
    "some_miss_the_barrier": "a barrier that 24 threads miss",
    "two_barriers": "threads at different barriers",
    "lane_is_gone": "an exchange (names a lane that is gone|that not all lanes)",
    "lane_is_elsewhere": "an exchange that not all lanes of its mask reach",
    "outside_its_mask": "a lane outside its own mask",
    "two_masks": "lanes of a warp at different|an exchange that not all lanes",
    "traps": "__trap",
    "narrow_product": "mul_overflow",
    "wide_shift": "shift_out_of_bounds",
    "beyond_an_array": "out_of_bounds",
}

pytestmark = pytest.mark.skipif(build.impossible() is not None, reason=str(build.impossible()))


@pytest.fixture(scope="module")
def emulator() -> Emulator:
    return Emulator(build.build(PROBES, build.OUT / "probes"))


def run(name: str, size: int = 0) -> torch.Tensor:
    x = torch.zeros(SIZE)
    return torch.ops.daqakd_probes.run(x, name, size)


def line_of(fault: str) -> int:
    """Return the line of the first ``// here`` after the kernel's name."""
    lines = SOURCE.read_text().splitlines()
    start = next(i for i, line in enumerate(lines) if f"void {fault}(" in line)
    return next(i + 1 for i in range(start, len(lines)) if "// here" in lines[i])


@pytest.mark.parametrize("order", [0, 1, 5])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported_with_its_line(emulator, fault, order):
    with emulator.ordered(order), pytest.raises(RuntimeError) as caught:
        run(fault)
    said = str(caught.value)
    assert re.search(FAULTS[fault], said), said
    assert f"faults.cuh:{line_of(fault)}" in said, said


def test_every_fault_is_tried():
    kernels = set(re.findall(r"__global__ void (\w+)\(", SOURCE.read_text()))
    assert kernels == set(FAULTS)


def test_a_fault_does_not_outlive_its_launch(emulator):
    with pytest.raises(RuntimeError, match="beyond_the_end"):
        run("beyond_the_end")
    run("shuffles")


def shuffled() -> torch.Tensor:
    def move(value: torch.Tensor, width: int, wanted) -> torch.Tensor:
        rows = value.view(-1, width)
        place = torch.tensor([w if 0 <= w < width else i for i, w in enumerate(wanted)])
        return (rows + rows[:, place]).view(-1)

    value = move(torch.arange(64.0), 32, [i ^ 1 for i in range(32)])
    value = move(value, 8, [i + 3 for i in range(8)])
    value = move(value, 32, [i - 2 for i in range(32)])
    return move(value, 16, [5] * 16)


@pytest.mark.parametrize("order", [0, 1, 5])
def test_shuffles_and_votes(emulator, order):
    with emulator.ordered(order):
        assert torch.equal(run("shuffles")[:64], shuffled())
        found = run("votes")
    for warp in range(2):
        threads = torch.arange(32 * warp, 32 * warp + 24)
        wanted = 0xAA + 1000.0 + 4000.0 * threads.sum() + 0.5 * threads.max()
        assert torch.equal(found[threads], wanted.expand(24))
        assert torch.equal(found[32 * warp + 24 : 32 * warp + 32], torch.zeros(8))


@pytest.mark.parametrize("order", [0, 1, 5])
def test_fences_and_atomics_order_blocks(emulator, order):
    with emulator.ordered(order):
        assert run("last_block")[1] == 123
        words = run("atomics").view(torch.int32)
    assert words[:3].tolist() == [3 * sum(range(64)), 63, 0]


def test_an_order_can_be_told_by_its_bits(emulator):
    """What tests of several orders rely on: a sum that depends on the order is another number."""
    sums = set()
    for order in (0, 1, 5, 6):
        with emulator.ordered(order):
            sums.add(float(run("depends_on_order")[0]))
    assert len(sums) > 1


def test_limits_of_a_launch(emulator):
    assert torch.equal(run("dynamic_shared", 256)[:64], torch.arange(63.0, -1, -1))
    with pytest.raises(RuntimeError, match=r"out of bounds.*\n?.*features.cuh"):
        run("dynamic_shared", 128)
    with pytest.raises(RuntimeError, match="bytes of shared memory"):
        run("dynamic_shared", 49 * 1024)
    with pytest.raises(RuntimeError, match="threads of a block"):
        run("block_of", 1025)
    with pytest.raises(RuntimeError, match="bytes of parameters"):
        run("many_parameters")


@pytest.mark.parametrize("pages", [0, 8000])
def test_what_was_written_before_it_forgot_counts_as_written(emulator, pages):
    emulator.remember(pages)
    try:
        assert torch.equal(run("two_launches")[:64], torch.full((64,), 255.0))
    finally:
        emulator.remember()


def test_leaked_memory_is_counted(emulator):
    before = emulator.living_tensors()
    run("shuffles")
    assert emulator.living_tensors() == before
    run("leak")
    assert emulator.living_tensors() == before + 1
