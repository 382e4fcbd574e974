"""Streams: the same pixels for the same (seed, epoch, image), and CutMix's arithmetic."""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from daqakd import InputError, InputSpec, register_strategy, strategies
from daqakd.augment import PAPER, Stream, draws, get_strategy
from daqakd.augment.mixing import cutmix_boxes

from ..helpers.small import small_images

NORMAL = {"inputs": InputSpec((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))}
IMAGES = small_images(40)


def stream(name: str, **options) -> Stream:
    settings = {"seed": 3, **NORMAL, **options}
    return Stream(IMAGES.pixels, IMAGES.labels, get_strategy(name), **settings)


def by_image(batches) -> dict[int, tuple[bytes, bytes]]:
    """Map image index to its pixels and soft target."""
    seen = {}
    for batch in batches:
        for i, image, target in zip(batch.index, batch.images, batch.targets(3), strict=True):
            seen[int(i)] = (image.numpy().tobytes(), target.numpy().tobytes())
    return seen


def test_philox_gives_the_published_words():
    """Random123's known answers for Philox4x32-10 with zero key and counter, and with pi."""
    zero = draws.philox(0, 0, torch.tensor(0), 0)
    assert [hex(w) for w in zero.tolist()] == [
        "0x6627e8d5",
        "0xe169c58d",
        "0xbc57ac4c",
        "0x9b00dbd8",
    ]


SEEDS = (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**40, 2**63, -1, -(2**32))


def test_every_bit_of_a_seed_counts():
    index = torch.arange(40)
    words = {tuple(draws.philox(s, 1, index, 2).flatten().tolist()) for s in SEEDS}
    orders = {tuple(draws.permutation(s, 1, index).tolist()) for s in SEEDS}
    generators = {draws.generator_seed(s) for s in SEEDS}
    assert len(words) == len(orders) == len(generators) == len(SEEDS)
    assert max(generators) < 2**32


def test_negative_seeds_are_those_of_64_bits():
    index = torch.arange(40)
    for seed in (-1, -(2**32), -(2**63)):
        whole = draws.philox(seed + 2**64, 1, index, 2)
        assert torch.equal(draws.philox(seed, 1, index, 2), whole)
        assert draws.generator_seed(seed) == draws.generator_seed(seed + 2**64)


def test_seeds_of_32_bits_are_generators_own():
    assert [draws.generator_seed(s) for s in (0, 7, 2**32 - 1)] == [0, 7, 2**32 - 1]


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.0, "1", None, True])
def test_seeds_that_cannot_be_meant(seed):
    with pytest.raises(InputError, match=r"seed: .* from -2\^63 to 2\^64 - 1, got"):
        stream("minimal", seed=seed)


@pytest.mark.parametrize("name", [*PAPER, "mixup", "random-erasing", "trivialaugment+cutmix"])
def test_pixels_depend_on_seed_epoch_and_image_alone(name):
    whole = by_image(stream(name).batches(1, [torch.arange(40)]))
    order = torch.randperm(40).split(7)
    assert by_image(stream(name, workers=2).batches(1, order)) == whole
    assert by_image(stream(name).batches(2, [torch.arange(40)])) != whole
    assert by_image(stream(name, seed=4).batches(1, [torch.arange(40)])) != whole


def test_a_stream_can_start_anywhere():
    whole = list(stream("trivialaugment").epoch(0, 8))
    late = list(stream("trivialaugment").epoch(0, 8, start=3))
    assert [b.index.tolist() for b in late] == [b.index.tolist() for b in whole[3:]]
    assert torch.equal(late[0].images, whole[3].images)


class Counter(TorchDispatchMode):
    """Counts calls of ops."""

    calls = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.calls += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("name", ["augmix", "random-erasing", "trivialaugment"])
def test_a_batch_takes_few_calls(name):
    """A draw is hundreds of calls: on a GPU they would take longer than a training step."""
    pixels, labels = torch.zeros(512, 3, 8, 8, dtype=torch.uint8), torch.zeros(512).long()
    many = Stream(pixels, labels, get_strategy(name), seed=3, **NORMAL)
    with Counter() as counted:
        batches = sum(1 for _ in many.epoch(0, 8))
    assert batches == 64
    assert counted.calls < 40 * batches


def test_global_generators_are_left_alone():
    before, python = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    list(stream("augmix").epoch(0, 8))
    assert torch.equal(torch.get_rng_state(), before)
    assert (np.random.get_state()[1] == python).all()  # noqa: NPY002


def test_epochs_visit_every_image_of_the_pool_in_another_order():
    pool = torch.arange(0, 40, 2)
    orders = [draws.permutation(0, epoch, pool).tolist() for epoch in range(3)]
    assert all(sorted(order) == pool.tolist() for order in orders)
    assert orders[0] != orders[1] != orders[2]


def test_cutmix_partners_come_from_the_pool_and_boxes_match_labels():
    pool = torch.arange(20)
    mixed = stream("cutmix", pool=pool, flip=False)
    plain = stream("minimal", pool=pool, flip=False)
    order = draws.permutation(3, 0, pool)
    for batch, same in zip(mixed.epoch(0, 20), plain.epoch(0, 20), strict=True):
        partners = order.roll(-1)
        assert torch.equal(batch.partner_labels, IMAGES.labels[partners])
        own = same.images
        other = own.roll(-1, 0)
        box = cutmix_boxes(3, 0, batch.index, 16, 16)
        for i, (left, top, right, bottom) in enumerate(box.tolist()):
            wanted = own[i].clone()
            wanted[:, top:bottom, left:right] = other[i][:, top:bottom, left:right]
            assert torch.equal(batch.images[i], wanted)
            area = (right - left) * (bottom - top) / 256
            assert batch.weight[i].item() == pytest.approx(1 - area)
        targets = batch.targets(3)
        torch.testing.assert_close(targets.sum(1), torch.ones(20))


def test_boxes_follow_the_law():
    """The uncut fraction is uniform before clipping: half sides of 0 to 0.5, centres everywhere."""
    box = cutmix_boxes(0, 0, torch.arange(4000), 32, 32)
    assert box.min() == 0
    assert box.max() == 32
    inner = (box[:, 0] > 0) & (box[:, 2] < 32)
    half = (box[inner, 2] - box[inner, 0]) / 2
    assert half.max() <= 16
    one = cutmix_boxes(0, 0, torch.zeros(5, dtype=torch.int64), 32, 32)
    assert (one == one[0]).all()


def test_one_box_per_batch_on_request():
    weights = next(iter(stream("cutmix", box="batch").epoch(0, 20))).weight
    assert weights.unique().numel() == 1


def test_a_registered_transform_draws_reproducibly():
    name = "noise-for-this-test"
    if name not in strategies():
        register_strategy(name, lambda image: image.rotate(float(np.random.rand()) * 90))  # noqa: NPY002
    first = by_image(stream(name).batches(0, [torch.arange(40)]))
    assert by_image(stream(name).batches(0, torch.arange(40).split(3))) == first
    assert get_strategy(f"{name}+cutmix").mixing == "cutmix"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: get_strategy("trivalaugment"), "unknown strategy.*Did you mean 'trivialaugment'"),
        (lambda: get_strategy("cutmix+cutmix"), "mixes images already"),
        (lambda: register_strategy("minimal", print), "taken"),
        (lambda: register_strategy("new", 3), "expected a callable"),  # type: ignore[arg-type]
    ],
)
def test_wrong_names_say_what_to_do(call, message):
    with pytest.raises(InputError, match=message):
        call()
