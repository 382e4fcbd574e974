"""Policies: torchvision's recorded draws give its images, and our draws follow its laws."""

import itertools
from collections import Counter, defaultdict
from functools import cache

import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import autoaugment

from daqakd import InputError
from daqakd.augment import draws
from daqakd.augment.mixing import boxes, erased, kept_share
from daqakd.augment.plan import Planner, normalised_values
from daqakd.augment.policies import CHAINS, DEPTH, POLICIES, policy
from daqakd.augment.settings import Canvas, Row, row, table
from daqakd.augment.tables import TABLES
from daqakd.functional import augment
from daqakd.functional.augment import Settings

from .pictures import adversarial, from_pil, to_pil
from .plans import plan_of

MODELS = {
    "randaugment": transforms.RandAugment,
    "trivialaugment": transforms.TrivialAugmentWide,
    "augmix": transforms.AugMix,
    "autoaugment-cifar": lambda: transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10),
    "autoaugment-imagenet": lambda: transforms.AutoAugment(transforms.AutoAugmentPolicy.IMAGENET),
    "autoaugment-svhn": lambda: transforms.AutoAugment(transforms.AutoAugmentPolicy.SVHN),
}
each_model = pytest.mark.parametrize("name", MODELS)
each_semantics = pytest.mark.parametrize("semantics", ["pil", "torchvision"])


class Recorder:
    """Watches torchvision augment: its operations, chain by chain, and AugMix's weights."""

    def __init__(self, monkeypatch, model) -> None:
        self.chains: list[list[tuple[str, float]]] = []
        self.weights: list[Tensor] = []
        self.start = None
        self.apply = autoaugment._apply_op
        monkeypatch.setattr(autoaugment, "_apply_op", self._operation)
        if isinstance(model, transforms.AugMix):
            sample = model._sample_dirichlet
            model._sample_dirichlet = lambda p: self._kept(sample(p))

    def _kept(self, weights: Tensor) -> Tensor:
        self.weights.append(weights)
        return weights

    def _operation(self, image, name, magnitude, **options):
        if self.start is None or image is self.start:
            self.start = image
            self.chains.append([])
        self.chains[-1].append((name, magnitude))
        return self.apply(image, name, magnitude, **options)

    def take(self) -> tuple[list, Tensor | None]:
        """Return and forget the last image's chains and shares."""
        chains, weights = self.chains, self.weights
        self.chains, self.weights, self.start = [], [], None
        if not weights:
            return [[operation for chain in chains for operation in chain]], None
        return chains, torch.cat([weights[0][:, :1], weights[1] * weights[0][:, 1:]], 1)


def replayed(images: Tensor, recorded: list, on: Canvas) -> Tensor:
    """Follow recorded draws: one (chains, shares) per image."""
    chains = max(len(drawn) for drawn, _ in recorded)
    setting = torch.zeros(len(images), chains, 4, dtype=torch.int16)
    rows: list[Row] = []
    for i, (drawn, _) in enumerate(recorded):
        for c, s in ((c, s) for c, chain in enumerate(drawn) for s in range(len(chain))):
            rows.append(row(*drawn[c][s], on))
            setting[i, c, s] = len(rows)
    shares = [share for _, share in recorded]
    share = None if shares[0] is None else torch.cat(shares)
    plan = plan_of(table(rows), setting, torch.arange(len(images)), share)
    return augment(images, plan, dtype=torch.uint8)


@each_semantics
@each_model
def test_recorded_draws_give_the_same_images(name, semantics, monkeypatch):
    model = MODELS[name]()
    watch = Recorder(monkeypatch, model)
    images = adversarial(32).repeat(12, 1, 1, 1)
    expected, recorded = [], []
    for image in images:
        expected.append(from_pil(model(to_pil(image))) if semantics == "pil" else model(image))
        recorded.append(watch.take())
    tensors = name == "augmix"  # torchvision's AugMix turns PIL images into tensors
    on = Canvas(32, 32, "torchvision" if tensors else semantics, bilinear=tensors)
    assert torch.equal(replayed(images, recorded, on), torch.stack(expected))


def key(settings: Settings, place: int) -> bytes:
    """Return what a row does, whatever its number."""
    parts = (settings.kind, settings.lut, settings.integer, settings.real + 0.0)
    return b"".join(part[place].numpy().tobytes() for part in parts)


def one_key(name: str, magnitude: float, on: Canvas) -> bytes:
    return key(table([row(name, magnitude, on)]), 1)


IDENTITY = key(table([]), 0)


def spread(name: str, space: dict, bins: slice, on: Canvas) -> dict[bytes, float]:
    """Return torchvision's law of one operation's magnitude and sign."""
    magnitudes, signed = space[name]
    found = magnitudes[bins].tolist() if magnitudes.ndim else [0.0]
    law: dict[bytes, float] = defaultdict(float)
    for magnitude, sign in itertools.product(found, (1.0, -1.0) if signed else (1.0,)):
        law[one_key(name, magnitude * sign, on)] += 1 / len(found) / (2 if signed else 1)
    return law


def mixed(laws: list[dict]) -> dict:
    """Return the law of one of several, equally likely."""
    law: dict = defaultdict(float)
    for k, share in (item for one in laws for item in one.items()):
        law[k] += share / len(laws)
    return law


def menu_law(name: str, on: Canvas) -> dict[bytes, float]:
    """Return torchvision's law of one slot."""
    model = MODELS[name]()
    if name == "trivialaugment":
        space, bins = model._augmentation_space(model.num_magnitude_bins), slice(None)
    elif name == "randaugment":
        space = model._augmentation_space(model.num_magnitude_bins, (on.height, on.width))
        bins = slice(model.magnitude, model.magnitude + 1)
    else:
        space = model._augmentation_space(10, (on.height, on.width))
        bins = slice(0, model.severity)
    return mixed([spread(operation, space, bins, on) for operation in space])


def pair_law(name: str, on: Canvas) -> dict[tuple[bytes, bytes], float]:
    """Return torchvision's law of AutoAugment's two slots."""
    model = MODELS[name]()
    space = model._augmentation_space(10, (on.height, on.width))
    laws = []
    for pair in model.policies:
        slots = []
        for operation, probability, magnitude in pair:
            bins = slice(0, 1) if magnitude is None else slice(magnitude, magnitude + 1)
            law = {k: p * probability for k, p in spread(operation, space, bins, on).items()}
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
    """Return settings and shares of many images, and what each row does."""
    made = policy(name, 32, 32, semantics)
    setting, share = made.draw(7, 3, torch.arange(IMAGES))
    return setting, share, [key(made.settings, place) for place in range(len(made.settings.kind))]


@each_semantics
@pytest.mark.parametrize("name", ["trivialaugment", "randaugment"])
def test_slots_follow_the_law(name, semantics):
    setting, share, keys = drawn(name, semantics)
    assert share is None
    law = menu_law(name, Canvas(32, 32, semantics))
    for slot in setting[:, 0].t():
        fits(Counter(keys[place] for place in slot.tolist()), law)


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("autoaugment")])
def test_sub_policies_follow_the_law(name):
    setting, _, keys = drawn(name, "pil")
    pairs = Counter((keys[a], keys[b]) for a, b in setting[:, 0].tolist())
    fits(pairs, pair_law(name, Canvas(32, 32)))


def test_augmix_follows_the_law():
    """Depths of one to three; operations of used slots; independent chains."""
    setting, _, keys = drawn("augmix", "pil")
    assert setting.shape[1:] == (CHAINS, DEPTH)
    depth = (setting != 0).sum(2)
    fits(
        Counter(map(tuple, depth.tolist())),
        dict.fromkeys(itertools.product((1, 2, 3), repeat=3), 1 / 27),
    )
    law = menu_law("augmix", Canvas(32, 32, "torchvision", bilinear=True))
    for chain in range(CHAINS):
        fits(Counter(keys[p] for p in setting[:, chain, 0].tolist()), law)
        used = setting[depth[:, chain] == 3][:, chain, 2]
        fits(Counter(keys[p] for p in used.tolist()), law)


def bins(values: Tensor, count: int) -> Counter:
    return Counter((values * count).long().clamp(max=count - 1).tolist())


def test_augmix_shares_follow_the_law():
    """Beta(1, 1) for the image; the chains' shares of the rest are Dirichlet(1, 1, 1)."""
    share = drawn("augmix", "pil")[1].double()
    torch.testing.assert_close(share.sum(1), torch.ones(IMAGES).double(), rtol=0, atol=2e-7)
    fits(bins(share[:, 0], 20), dict.fromkeys(range(20), 1 / 20))
    ends = [1 - (1 - i / 20) ** 2 for i in range(21)]  # Beta(1, 2) is each margin
    law = {i: ends[i + 1] - ends[i] for i in range(20)}
    for chain in range(1, 4):
        fits(bins(share[:, chain] / (1 - share[:, 0]), 20), law)


def planner(**change) -> Planner:
    options = {"pad": 4, "flip": True, "erasing": False, "mixing": None, "box": "image"}
    options |= {"values": normalised_values((0.5,) * 3, (0.25,) * 3), "seed": 5} | change
    return Planner(policy("nothing", 32, 32), height=32, width=32, **options)


def test_crops_and_mirrors_follow_the_law():
    plan = planner().plan(1, torch.arange(IMAGES))
    cells = Counter(map(tuple, plan.crop.tolist()))
    fits(cells, dict.fromkeys(itertools.product(range(-4, 5), repeat=2), 1 / 81))
    fits(Counter(plan.flip.tolist()), {True: 0.5, False: 0.5})
    assert not planner(flip=False).plan(1, torch.arange(100)).flip.any()


@pytest.mark.parametrize("box", ["image", "batch"])
@pytest.mark.parametrize("mixing", [None, "cutmix", "mixup"])
@pytest.mark.parametrize("name", POLICIES)
def test_plans_drawn_together_are_those_drawn_one_by_one(name, mixing, box):
    options = {"pad": 4, "flip": True, "erasing": True, "mixing": mixing, "box": box}
    drawing = Planner(policy(name, 32, 32), 32, 32, **options, values=None, seed=5)
    batches, partners = torch.randperm(40).split([7, 1, 20, 12]), None
    if mixing:
        partners = [torch.randperm(len(batch))[: 1 + len(batch) // 2] for batch in batches]
    together = drawing.plans(2, batches, partners)
    for i, (plan, batch) in enumerate(zip(together, batches, strict=True)):
        alone = drawing.plan(2, batch, partners and partners[i])
        assert plan.rows == (len(partners[i]) if mixing else len(batch))
        for found, wanted in zip(vars(plan).values(), vars(alone).values(), strict=True):
            same = isinstance(wanted, Tensor) and torch.equal(found, wanted)
            assert same or found is wanted


def test_crops_and_mirrors_are_torchvisions(monkeypatch):
    """Its recorded draws in a plan give its images."""
    places, mirrored = [], []
    get = transforms.RandomCrop.get_params
    monkeypatch.setattr(
        transforms.RandomCrop,
        "get_params",
        staticmethod(lambda image, size: places.append(get(image, size)) or places[-1]),
    )
    images = adversarial(32).repeat(8, 1, 1, 1)
    crop, expected = transforms.RandomCrop(32, padding=4), []
    for i, image in enumerate(images):
        moved = crop(to_pil(image))
        mirrored.append(i % 3 == 0)
        expected.append(from_pil(transforms.functional.hflip(moved) if mirrored[-1] else moved))
    plan = plan_of(table([]), torch.zeros(64, 1, 0).short(), torch.arange(64))
    plan.crop.copy_(torch.tensor([(top - 4, left - 4) for top, left, _, _ in places]))
    plan.flip.copy_(torch.tensor(mirrored))
    assert torch.equal(augment(images, plan, dtype=torch.uint8), torch.stack(expected))


def test_erased_boxes_follow_the_law():
    """Half the images; sides as torchvision draws them; every place equally likely."""
    box = erased(2, 0, torch.arange(IMAGES), 32, 32).long()
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
    box = boxes(1, 0, torch.arange(IMAGES), 32, 32)
    for low, high in ((box[:, 0], box[:, 2]), (box[:, 1], box[:, 3])):
        inner = (low > 0) & (high < 32)
        sides = {half: (2 * half + 1) * (31 - 2 * half) for half in range(16)}
        law = {2 * half: ways / sum(sides.values()) for half, ways in sides.items()}
        fits(Counter((high - low)[inner].tolist()), law)


def test_the_label_weight_is_the_area_outside_the_box():
    box = boxes(0, 0, torch.arange(500), 24, 32)
    outside = torch.ones(500, 24, 32)
    for image, (left, top, right, bottom) in zip(outside, box.tolist(), strict=True):
        image[top:bottom, left:right] = 0
    assert torch.equal(kept_share(box, 24, 32), outside.mean((1, 2)))


def test_tables_are_torchvisions():
    from daqakd.augment.tables import sub_policies

    for data, text in TABLES.items():
        assert sub_policies(text) == MODELS[f"autoaugment-{data}"]().policies


def test_draws_are_the_same_for_one_slot_and_many():
    index = torch.arange(50)
    many = draws.philox(1, 2, index[:, None], torch.arange(5))
    for slot in range(5):
        assert torch.equal(many[:, slot], draws.philox(1, 2, index, slot))


@pytest.mark.parametrize("name", POLICIES)
def test_policies_draw_each_image_alone(name):
    made = policy(name, 32, 32)
    index = torch.randperm(300)
    setting, share = made.draw(1, 2, index)
    again, shares = made.draw(1, 2, index[:7])
    assert torch.equal(setting[:7], again)
    assert share is None or torch.equal(share[:7], shares)
    assert setting.min() >= 0 if setting.numel() else True


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policy("trivialaugmentt", 32, 32), "Did you mean 'trivialaugment'"),
        (lambda: policy("cifar", 32, 32), "unknown policy"),
        (lambda: policy("nothing", 32, 32, "cv2"), "unknown semantics"),
        (lambda: row("Blur", 0.0, Canvas(32, 32)), "unknown operation"),
    ],
    ids=["policy", "data", "semantics", "operation"],
)
def test_wrong_names_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
