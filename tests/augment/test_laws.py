"""Draws of the strategies follow the distributions of torchvision, or of their papers."""

import itertools
from collections import Counter, defaultdict
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import transforms

from daqakd.augment.mixing import cutmix_boxes, erasing_boxes
from daqakd.augment.plan import Planner, normalised_values
from daqakd.augment.policies import CHAIN_DEPTH, MIXTURE_WIDTH, policy
from daqakd.augment.settings import ImageContext, make_setting, stack_settings
from daqakd.functional.augment import Settings

from .test_policies import MODELS, each_semantics


def key(settings: Settings, row: int) -> bytes:
    """Return what a row does, whatever its number."""
    parts = (settings.kind, settings.lut, settings.integer, settings.real + 0.0)
    return b"".join(part[row].numpy().tobytes() for part in parts)


def one_key(name: str, magnitude: float, context: ImageContext) -> bytes:
    return key(stack_settings([make_setting(name, magnitude, context)]), 1)


IDENTITY = key(stack_settings([]), 0)


def spread(name: str, space: dict, bins: slice, context: ImageContext) -> dict[bytes, float]:
    """Return torchvision's law of one operation's magnitude and sign."""
    magnitudes, signed = space[name]
    found = magnitudes[bins].tolist() if magnitudes.ndim else [0.0]
    law: dict[bytes, float] = defaultdict(float)
    for magnitude, sign in itertools.product(found, (1.0, -1.0) if signed else (1.0,)):
        law[one_key(name, magnitude * sign, context)] += 1 / len(found) / (2 if signed else 1)
    return law


def mixed(laws: list[dict]) -> dict:
    """Return the law of one of several, equally likely."""
    law: dict = defaultdict(float)
    for k, probability in (item for one in laws for item in one.items()):
        law[k] += probability / len(laws)
    return law


def operations_law(name: str, context: ImageContext) -> dict[bytes, float]:
    """Return torchvision's law of one slot."""
    model = MODELS[name]()
    if name == "trivialaugment":
        space, bins = model._augmentation_space(model.num_magnitude_bins), slice(None)
    elif name == "randaugment":
        space = model._augmentation_space(model.num_magnitude_bins, (context.height, context.width))
        bins = slice(model.magnitude, model.magnitude + 1)
    else:
        space = model._augmentation_space(10, (context.height, context.width))
        bins = slice(0, model.severity)
    return mixed([spread(operation, space, bins, context) for operation in space])


def pair_law(name: str, context: ImageContext) -> dict[tuple[bytes, bytes], float]:
    """Return torchvision's law of AutoAugment's two slots."""
    model = MODELS[name]()
    space = model._augmentation_space(10, (context.height, context.width))
    laws = []
    for pair in model.policies:
        slots = []
        for operation, probability, magnitude in pair:
            bins = slice(0, 1) if magnitude is None else slice(magnitude, magnitude + 1)
            law = {k: p * probability for k, p in spread(operation, space, bins, context).items()}
            law[IDENTITY] = law.get(IDENTITY, 0.0) + 1 - probability
            slots.append(law)
        both = itertools.product(*(law.items() for law in slots))
        laws.append({(a, b): p * q for (a, p), (b, q) in both})
    return mixed(laws)


def fits(counts: Counter, law: dict) -> None:
    """Chi-square at 5 standard deviations; rare outcomes are pooled."""
    total = sum(counts.values())
    assert set(counts) <= {k for k, p in law.items() if p > 0}
    assert sum(law.values()) == pytest.approx(1)
    common = [k for k, p in law.items() if p * total >= 5]
    rare = [k for k, p in law.items() if p * total < 5]
    cells = [(counts[k], law[k] * total) for k in common]
    cells += [(sum(counts[k] for k in rare), sum(law[k] for k in rare) * total)] if rare else []
    statistic = sum((seen - want) ** 2 / want for seen, want in cells if want > 1)
    freedom = len(cells) - 1
    assert statistic < freedom + 5 * (2 * freedom) ** 0.5 + 10


IMAGES = 60_000


@cache
def drawn(name: str, semantics: str) -> tuple[Tensor, Tensor | None, list[bytes]]:
    """Return settings and weights of many images, and what each row does."""
    made = policy(name, 32, 32, semantics)
    setting, weights = made.draw(7, 3, torch.arange(IMAGES))
    return setting, weights, [key(made.settings, row) for row in range(len(made.settings.kind))]


@each_semantics
@pytest.mark.parametrize("name", ["trivialaugment", "randaugment"])
def test_slots_follow_the_law(name, semantics):
    setting, weights, keys = drawn(name, semantics)
    assert weights is None
    law = operations_law(name, ImageContext(32, 32, semantics))
    for slot in setting[:, 0].t():
        fits(Counter(keys[row] for row in slot.tolist()), law)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("autoaugment")])
def test_sub_policies_follow_the_law(name):
    setting, _, keys = drawn(name, "pil")
    pairs = Counter((keys[a], keys[b]) for a, b in setting[:, 0].tolist())
    fits(pairs, pair_law(name, ImageContext(32, 32)))


def test_augmix_follows_the_law():
    """Depths of one to three; operations of used slots; independent chains."""
    setting, _, keys = drawn("augmix", "pil")
    assert setting.shape[1:] == (MIXTURE_WIDTH, CHAIN_DEPTH)
    depth = (setting != 0).sum(2)
    fits(
        Counter(map(tuple, depth.tolist())),
        dict.fromkeys(itertools.product((1, 2, 3), repeat=3), 1 / 27),
    )
    law = operations_law("augmix", ImageContext(32, 32, "torchvision", bilinear=True))
    for chain in range(MIXTURE_WIDTH):
        fits(Counter(keys[p] for p in setting[:, chain, 0].tolist()), law)
        used = setting[depth[:, chain] == 3][:, chain, 2]
        fits(Counter(keys[p] for p in used.tolist()), law)


def bins(values: Tensor, count: int) -> Counter:
    return Counter((values * count).long().clamp(max=count - 1).tolist())


def test_augmix_weights_follow_the_law():
    """Beta(1, 1) for the image; the chains' weights, over the rest, are Dirichlet(1, 1, 1)."""
    weights = drawn("augmix", "pil")[1].double()
    torch.testing.assert_close(weights.sum(1), torch.ones(IMAGES).double(), rtol=0, atol=2e-7)
    fits(bins(weights[:, 0], 20), dict.fromkeys(range(20), 1 / 20))
    cdf = [1 - (1 - i / 20) ** 2 for i in range(21)]  # Beta(1, 2) is each margin
    law = {i: cdf[i + 1] - cdf[i] for i in range(20)}
    for chain in range(1, 4):
        fits(bins(weights[:, chain] / (1 - weights[:, 0]), 20), law)


def planner(**change) -> Planner:
    options: dict[str, Any] = {"pad": 4, "flip": True, "erasing": False, "mixing": None}
    options |= {"box": "image", "values": normalised_values((0.5,) * 3, (0.25,) * 3), "seed": 5}
    options |= change
    return Planner(policy("nothing", 32, 32), height=32, width=32, **options)


def test_crops_and_mirrors_follow_the_law():
    plan = planner().plan(1, torch.arange(IMAGES))
    cells = Counter(map(tuple, plan.crop.tolist()))
    fits(cells, dict.fromkeys(itertools.product(range(-4, 5), repeat=2), 1 / 81))
    fits(Counter(plan.flip.tolist()), {True: 0.5, False: 0.5})
    assert not planner(flip=False).plan(1, torch.arange(100)).flip.any()


def test_erased_boxes_follow_the_law():
    """Half the images; sides as torchvision draws them; every place equally likely."""
    box = erasing_boxes(2, 0, torch.arange(IMAGES), 32, 32).long()
    wide, tall = box[:, 2] - box[:, 0], box[:, 3] - box[:, 1]
    some = wide * tall > 0
    fits(Counter(some.tolist()), {True: 0.5, False: 0.5})
    assert box.min() >= 0
    assert box.max() <= 32
    image = torch.zeros(1, 32, 32)
    model = transforms.RandomErasing.get_params
    theirs = [model(image, (0.02, 0.33), (0.3, 3.3), [0.0]) for _ in range(6000)]
    for ours, place in ((tall, 2), (wide, 3)):
        wanted = Counter(drawn[place] for drawn in theirs)
        seen = Counter(ours[some].tolist())
        distance = max(
            abs(
                sum(c for v, c in seen.items() if v <= t) / int(some.sum())
                - sum(c for v, c in wanted.items() if v <= t) / len(theirs)
            )
            for t in range(32)
        )
        assert distance < 2.0 * (1 / int(some.sum()) + 1 / len(theirs)) ** 0.5  # Kolmogorov-Smirnov
    free = 33 - wide[some]
    fits(bins((box[some, 0] + 0.5) / free, 8), place_law(free, 8))


def place_law(free: Tensor, count: int) -> dict[int, float]:
    """Return the law of the binned (left + 0.5) / free for left uniform below ``free``."""
    law: Counter = Counter()
    for places, times in Counter(free.tolist()).items():
        for left in range(places):
            law[min(int((left + 0.5) / places * count), count - 1)] += times / places
    return {k: v / len(free) for k, v in law.items()}


def test_boxes_follow_the_law():
    """int(0.5 * sqrt(1 - u) * 32) for the half side; all centres; seen where nothing is clipped."""
    box = cutmix_boxes(1, 0, torch.arange(IMAGES), 32, 32)
    for low, high in ((box[:, 0], box[:, 2]), (box[:, 1], box[:, 3])):
        inner = (low > 0) & (high < 32)
        sides = {half: (2 * half + 1) * (31 - 2 * half) for half in range(16)}
        law = {2 * half: ways / sum(sides.values()) for half, ways in sides.items()}
        fits(Counter((high - low)[inner].tolist()), law)
