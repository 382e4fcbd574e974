"""Policies: torchvision's recorded draws give its images, and our draws follow its laws."""

import pytest
import torch
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import autoaugment

from daqakd import InputError
from daqakd.augment import draws, ranges
from daqakd.augment.mixing import cutmix_boxes, kept_fraction
from daqakd.augment.plan import Planner
from daqakd.augment.policies import POLICIES, policy
from daqakd.augment.settings import ImageContext, Setting, make_setting, stack_settings
from daqakd.augment.tables import TABLES
from daqakd.functional import augment

from ..helpers.pictures import adversarial, from_pil, to_pil
from ..helpers.plans import plan_of
from .conftest import FUSED, fused_linspace, machine_linspace

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


SIDES = [n / 3 for n in range(1, 600)] + [150 / 331 * n for n in range(1, 600)]
ENDS = [(0.0, last) for last in (0.3, 0.9, 0.99, 30.0, 32.0, 135.0, *SIDES)] + [(255.0, 0.0)]


@pytest.mark.parametrize("count", [10, 31])
@pytest.mark.parametrize("model", [fused_linspace, machine_linspace])
def test_magnitudes_are_linspaces_where_it_is_fused(model, count):
    if model is machine_linspace and not FUSED:
        pytest.skip("PyTorch's own does not fuse additions on this machine")
    for first, last in ENDS:
        wanted = model(float(first), float(last), count).tolist()
        assert ranges.equal_steps(first, last, count) == wanted


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
        """Return and forget the last image's chains and weights."""
        chains, weights = self.chains, self.weights
        self.chains, self.weights, self.start = [], [], None
        if not weights:
            return [[operation for chain in chains for operation in chain]], None
        return chains, torch.cat([weights[0][:, :1], weights[1] * weights[0][:, 1:]], 1)


def replayed(images: Tensor, recorded: list, context: ImageContext) -> Tensor:
    """Follow recorded draws: one (chains, weights) per image."""
    chains = max(len(drawn) for drawn, _ in recorded)
    setting = torch.zeros(len(images), chains, 4, dtype=torch.int16)
    settings: list[Setting] = []
    for i, (drawn, _) in enumerate(recorded):
        for c, s in ((c, s) for c, chain in enumerate(drawn) for s in range(len(chain))):
            name, magnitude = drawn[c][s]
            settings.append(make_setting(name, magnitude, context))
            setting[i, c, s] = len(settings)
    drawn_weights = [weights for _, weights in recorded]
    share = None if drawn_weights[0] is None else torch.cat(drawn_weights)
    plan = plan_of(stack_settings(settings), setting, torch.arange(len(images)), share)
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
    context = ImageContext(32, 32, "torchvision" if tensors else semantics, bilinear=tensors)
    assert torch.equal(replayed(images, recorded, context), torch.stack(expected))


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
    plan = plan_of(stack_settings([]), torch.zeros(64, 1, 0).short(), torch.arange(64))
    plan.crop.copy_(torch.tensor([(top - 4, left - 4) for top, left, _, _ in places]))
    plan.flip.copy_(torch.tensor(mirrored))
    assert torch.equal(augment(images, plan, dtype=torch.uint8), torch.stack(expected))


def test_the_label_weight_is_the_area_outside_the_box():
    box = cutmix_boxes(0, 0, torch.arange(500), 24, 32)
    outside = torch.ones(500, 24, 32)
    for image, (left, top, right, bottom) in zip(outside, box.tolist(), strict=True):
        image[top:bottom, left:right] = 0
    assert torch.equal(kept_fraction(box, 24, 32), outside.mean((1, 2)))


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
    setting, weights = made.draw(1, 2, index)
    again, some_weights = made.draw(1, 2, index[:7])
    assert torch.equal(setting[:7], again)
    assert weights is None or torch.equal(weights[:7], some_weights)
    assert setting.min() >= 0 if setting.numel() else True


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: policy("trivialaugmentt", 32, 32), "Did you mean 'trivialaugment'"),
        (lambda: policy("cifar", 32, 32), "unknown policy"),
        (lambda: policy("nothing", 32, 32, "cv2"), "unknown semantics"),
        (lambda: make_setting("Blur", 0.0, ImageContext(32, 32)), "unknown operation"),
    ],
    ids=["policy", "data", "semantics", "operation"],
)
def test_wrong_names_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


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
