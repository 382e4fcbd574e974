"""More than 2^31 elements: the first and last blocks of every launch.

Memory between the ends is never touched, so only the ends of a tensor exist; what the sampled
blocks write must be what the native CPU makes of the ends alone.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from daqakd._ops import overload

from ..helpers.plans import example_plan, op_arguments, random_pixels
from . import build
from .backend import emulator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(build.impossible() is not None, reason=str(build.impossible())),
]
HALF = torch.bfloat16
LARGE = 2**31 + 24 + 8192
TILE = 8192
P = torch.tensor(0.4)


def ends(shape: tuple[int, ...], count: int = 2 * TILE, dtype: torch.dtype = HALF) -> Tensor:
    """Return a tensor of which only ``count`` elements at each end have values."""
    x = torch.empty(shape, dtype=dtype)
    flat = x.view(-1)
    flat[:count], flat[-count:] = torch.randn(count).to(dtype), torch.randn(count).to(dtype)
    return x


def both_ends(x: Tensor, count: int) -> Tensor:
    return torch.cat([x.view(-1)[:count], x.view(-1)[-count:]])


@pytest.fixture(scope="module")
def long() -> Tensor:
    torch.manual_seed(0)
    return ends((LARGE,))


FLAT = {
    "lsq_forward": lambda b, x: overload("lsq_forward", b)(x, P, -8, 7, None),
    "lsq_backward": lambda b, x: overload("lsq_backward", b)(x, x, P, -8, 7, None, 0, 1.0)[0],
    "pact_forward": lambda b, x: overload("pact_forward", b)(x, P, 4, True, None)[0],
    "dorefa_activation": lambda b, x: overload("dorefa_activation_forward", b)(x, 4, True)[0],
    "dorefa_weight_backward": lambda b, x: overload("dorefa_weight_backward", b)(x, x, P, 4, True),
    "ewgs_forward": lambda b, x: overload("ewgs_forward", b)(x, -P, P, 4),
    "ewgs_backward": lambda b, x: overload("ewgs_backward", b)(x, x, -P, P, 4, 0.1, None)[0],
    "lsqplus_forward": lambda b, x: overload("lsqplus_forward", b)(x, P, -P, 4),
    "lsqplus_backward": lambda b, x: overload("lsqplus_backward", b)(x, x, P, -P, 4, 0.1)[0],
    "seq_forward": lambda b, x: overload("seq_forward", b)(x, P, 4, None),
    "seq_backward": lambda b, x: overload("seq_backward", b)(x, x, P, 4, None, 0.1)[0],
    "lsq_many_forward": lambda b, x: overload("lsq_many_forward", b)([x], [P], [-8], [7])[0],
    "ewgs_many_forward": lambda b, x: overload("ewgs_many_forward", b)([x], [-P], [P], [4])[0],
    "lsq_many_backward": lambda b, x: overload("lsq_many_backward", b)(
        [x], [x], [P], [-8], [7], 0, [1.0]
    )[0][0],
    "dorefa_weight_many_backward": lambda b, x: overload("dorefa_weight_many_backward", b)(
        [x], [x], P[None], [4], True
    )[0],
}


@pytest.mark.parametrize("op", FLAT)
def test_flat(op, long):
    with emulator().sampled(2):
        found = FLAT[op]("emulated", long)
    wanted = FLAT[op]("native", both_ends(long, 2 * TILE))
    assert torch.equal(both_ends(found, TILE // 8), both_ends(wanted, TILE // 8))


def test_masks(long):
    with emulator().sampled(2):
        mask = overload("pact_forward", "emulated")(long, P, 4, True, None)[1]
    wanted = overload("pact_forward", "native")(both_ends(long, 2 * TILE), P, 4, True, None)[1]
    assert torch.equal(both_ends(mask, TILE // 32), both_ends(wanted, TILE // 32))
    packed = torch.zeros((LARGE + 3) // 4, dtype=torch.uint8)
    packed[: TILE // 2], packed[-TILE // 2 :] = 0x55, 0x55  # all inside
    with emulator().sampled(2):
        dx = overload("pact_backward", "emulated")(long, packed, P, True, None)[0]
    assert torch.equal(both_ends(dx, TILE // 2), both_ends(long, TILE // 2))


def test_codes(long):
    with emulator().sampled(2):
        codes = overload("codes_pack", "emulated")(long, P, 1, 4, True)
    wanted = overload("codes_pack", "native")(both_ends(long, 2 * TILE), P, 1, 4, True)
    assert torch.equal(both_ends(codes, TILE // 16), both_ends(wanted, TILE // 16))
    codes[: TILE // 2], codes[-TILE // 2 :] = wanted[: TILE // 2], wanted[-TILE // 2 :]
    with emulator().sampled(2):
        y = overload("codes_unpack", "emulated")(codes, P, 1, 4, True, LARGE, HALF)
    wanted = overload("codes_unpack", "native")(wanted, P, 1, 4, True, 4 * TILE, HALF)
    assert torch.equal(both_ends(y, TILE // 8), both_ends(wanted, TILE // 8))


def test_largest_weight_reads_within(long):
    """Unsampled blocks leave their maxima undefined, so only the accesses are checked."""
    with emulator().sampled(2):
        before = emulator().counts()["reports"]
        overload("dorefa_weight_forward", "emulated")(long, 4)
        overload("dorefa_weight_many_forward", "emulated")([long], [4])
    assert emulator().counts()["reports"] == before


CHANNELS = {
    "rows": ((3, 2**30 + 8), 0, 2000),
    "columns": ((2**30 + 9, 3), 1, 1500),
    "groups": ((2**20 + 3, 32, 72), 1, 2000),
    "pieces": ((2, 3, 2**29), 1, 2000),
}


@pytest.mark.parametrize("name", CHANNELS)
def test_channels(name):
    shape, axis, count = CHANNELS[name]
    torch.manual_seed(0)
    x, channels = ends(shape, 2**20), shape[axis]
    steps, inner = 0.2 + torch.arange(channels) / 40, x.stride(axis)
    places = torch.cat([torch.arange(count), x.numel() - count + torch.arange(count)])
    v = both_ends(x, count).float() / steps[places // inner % channels]
    y = (v.clamp(-8, 7).round() * steps[places // inner % channels]).to(HALF)
    dx = torch.where((v >= -8) & (v <= 7), both_ends(x, count), torch.zeros((), dtype=HALF))
    with emulator().sampled(70):  # a tile of memory is many blocks here
        forward = overload("lsq_forward", "emulated")(x, steps, -8, 7, axis)
        assert torch.equal(both_ends(forward, count), y)
        del forward
        found = overload("lsq_backward", "emulated")(x, x, steps, -8, 7, axis, 0, 1.0)[0]
    assert torch.equal(both_ends(found, count), dx)


def test_kd_loss():
    rows, classes = 70_000, 32_000
    z = torch.empty(rows, classes, dtype=HALF)
    places = [0, 1, rows - 2, rows - 1]
    for place in places:
        z[place] = torch.randn(classes).to(HALF)
    settings = 4.0, 1.0, 2.0, None, None, None, 0.0, -100, 0, True
    labels = torch.zeros(rows, dtype=torch.int64)
    with emulator().sampled(2):
        loss, _, _, _, grad = overload("kd_loss_forward", "emulated")(z, z, labels, *settings)
    few = z[places]
    wanted = overload("kd_loss_forward", "native")(few, few, labels[:4], *settings)
    torch.testing.assert_close(loss[places], wanted[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(grad[places].float(), wanted[4].float(), rtol=1e-2, atol=1e-6)


def test_cmi():
    rows, classes, few = 2_200_000, 1000, 16
    z = torch.empty(rows, classes, dtype=HALF)
    z[:few], z[-few:] = torch.randn(few, classes).to(HALF), torch.randn(few, classes).to(HALF)
    labels, centroids = torch.zeros(rows).long(), torch.rand(classes, classes).double().softmax(1)
    ones, two = torch.ones(rows).double(), torch.cat([z[:few], z[-few:]])
    arguments = two, labels[: 2 * few], centroids
    with emulator().sampled(2):
        rows_found = overload("cmi_divergence", "emulated")(z, labels, centroids)
        dz = overload("cmi_divergence_backward", "emulated")(ones, z, labels, centroids)
    wanted = overload("cmi_divergence", "native")(*arguments)
    dwanted = overload("cmi_divergence_backward", "native")(ones[: 2 * few], *arguments)
    for a, b in ((rows_found, wanted), (dz, dwanted)):
        assert torch.equal(torch.cat([a[:2], a[-2:]]), torch.cat([b[:2], b[-2:]]))


def test_cmi_update():
    """The last row alone counts: every other sampled row has weight 0."""
    rows, classes = 2_200_000, 1000
    z = torch.empty(rows, classes, dtype=HALF)
    z[:64], z[-64:] = torch.randn(64, classes).to(HALF), torch.randn(64, classes).to(HALF)
    labels, weight = torch.zeros(rows).long(), torch.zeros(rows)
    weight[-1] = 1
    states = [torch.zeros(1, classes, classes + 5, 2, dtype=torch.int64) for _ in range(2)]
    with emulator().sampled(2):
        overload("cmi_update", "emulated")(states[0], z, labels, weight, None)
    overload("cmi_update", "native")(states[1], z[-1:], labels[-1:], weight[-1:], None)
    assert torch.equal(*states)


def test_augment():
    """Large images: 256 blocks, each of which takes every 256th row."""
    images, side, sampled = 513, 1200, [0, 511, 512]
    assert sampled[1] * 3 * side**2 > 2**31
    plan = replace(example_plan(images, 1, 1), index=torch.arange(images), values=None)
    pixels = torch.empty(images, 3, side, side, dtype=torch.uint8)
    pixels[sampled] = random_pixels(3, side, side)
    with emulator().sampled(1):
        found = overload("augment", "emulated")(*op_arguments(plan, pixels, torch.uint8))
    parts = {name: getattr(plan, name)[sampled] for name in ("crop", "flip", "setting", "erase")}
    few = replace(plan, index=torch.arange(3), **parts)
    wanted = overload("augment", "native")(*op_arguments(few, pixels[sampled], torch.uint8))
    assert torch.equal(found[sampled], wanted)
