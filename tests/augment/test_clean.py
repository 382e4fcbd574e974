"""Clean images at the size that the network sees: torchvision's resize and centre crop."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from daqakd import InputSpec, ResizedCrop
from daqakd.augment import clean, clean_inputs
from daqakd.ranking import RankConfig
from daqakd.ranking.job import make_job, teacher_accuracy
from daqakd.train import accuracy

from ..helpers.pictures import from_pil, pictures, to_pil
from ..helpers.small import small_dataset
from .test_pipeline import RESIZE_LIMIT

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
each_semantics = pytest.mark.parametrize("semantics", ["pil", "torchvision"])


def resized(size: int) -> InputSpec:
    return InputSpec(pipeline=ResizedCrop(size))


def expected(image: Tensor, size: int, semantics: str) -> Tensor:
    """Resize the shorter side to 8/7 of ``size`` and cut the middle out, by torchvision."""
    from torchvision.transforms.functional import center_crop, resize

    large = size * 8 // 7
    if semantics == "torchvision":
        return center_crop(resize(image, [large, large], antialias=True), [size, size])
    # an axis at a time: Pillow 13 may go down first, earlier versions never do
    across = resize(to_pil(image), [image.shape[1], large])
    return from_pil(center_crop(resize(across, [large, large]), [size, size]))


@each_semantics
@pytest.mark.parametrize("size", [224, 48, 25, 24, 7, 1])
def test_clean_images_are_resized_and_their_middle_is_kept(size, semantics):
    images = pictures("adversarial", 32)
    result = clean(images, InputSpec(pipeline=ResizedCrop(size), semantics=semantics))
    wanted = torch.stack([expected(image, size, semantics) for image in images])
    difference = (result.int() - wanted.int()).abs()
    assert difference.max() <= (0 if semantics == "pil" else 1)
    assert (difference > 0).float().mean() <= (0 if semantics == "pil" else RESIZE_LIMIT)


@each_semantics
@pytest.mark.parametrize("size", [224, 28, 24, 7])
def test_whole_images_are_resized_and_nothing_is_cut(size, semantics):
    from torchvision.transforms.functional import resize

    images, large = pictures("adversarial", 32), [size * 8 // 7] * 2
    spec = InputSpec(pipeline=ResizedCrop(size), semantics=semantics, clean="whole")
    result = clean(images, spec)
    if semantics == "torchvision":
        wanted = torch.stack([resize(image, large, antialias=True) for image in images])
    else:
        wanted = torch.stack([from_pil(resize(to_pil(image), large)) for image in images])
    assert result.shape[-1] == large[0]
    difference = (result.int() - wanted.int()).abs()
    assert difference.max() <= (0 if semantics == "pil" else 1)
    assert (difference > 0).float().mean() <= (0 if semantics == "pil" else RESIZE_LIMIT)


def test_whole_images_stay_as_they_are_at_the_size_they_are_tested_at():
    images, small = pictures("adversarial", 32), pictures("adversarial", 28)
    spec = replace(resized(28), clean="whole")
    assert clean(images, spec) is images
    assert clean(small, spec).shape[-1] == 32
    assert clean(small, resized(28)) is small
    assert clean(images, InputSpec(clean="whole")) is images


def test_a_description_changes_with_whole_images_alone():
    assert resized(28).describe() == f"{ResizedCrop(28)} (pil)"
    assert replace(resized(28), clean="whole").describe().endswith(", clean images whole")


def test_images_of_the_network_s_size_are_seen_as_they_are():
    images = pictures("adversarial", 32)
    assert clean(images, InputSpec()) is images
    assert clean(images, resized(32)) is images
    assert not torch.equal(clean(images[..., :31], resized(32))[..., :31], images[..., :31])


def test_of_oblong_images_the_square_in_the_middle_is_taken():
    images = torch.randint(0, 256, (2, 3, 20, 33)).byte()
    square = images[..., 6:26]
    assert torch.equal(clean(images, resized(24)), clean(square, resized(24)))
    turned = clean(images.transpose(2, 3), resized(24))
    assert torch.equal(turned, clean(square.transpose(2, 3), resized(24)))


def test_no_images():
    assert clean(torch.empty(0, 3, 20, 20).byte(), resized(24)).shape == (0, 3, 24, 24)


class Watched(torch.nn.Module):
    """Tells the small images' classes by their colour, and keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def __deepcopy__(self, memo):
        return self

    def forward(self, x):
        self.seen.append(x)
        return x.mean((2, 3))


@each_semantics
@pytest.mark.parametrize("pipeline", [None, ResizedCrop(24)], ids=["whole", "resized"])
def test_the_ranker_and_the_trainer_look_at_the_same_clean_images(pipeline, semantics):
    inputs = InputSpec(MEAN, STD, pipeline, semantics)
    dataset = replace(small_dataset(60), inputs=inputs)
    model = Watched()
    job = make_job(model, dataset, RankConfig())
    right = teacher_accuracy(job)
    order = torch.cat([index for _, index in job.steps])
    wanted = clean_inputs(dataset.train.pixels[order], inputs, "cpu")
    assert torch.equal(torch.cat(model.seen), wanted)
    side = 16 if pipeline is None else 24
    assert wanted.shape == (60, 3, side, side)
    model.seen.clear()
    images, chosen = dataset.train, order[:20]
    assert accuracy(model, images, inputs, "cpu", chosen) == 1.0 == right
    assert torch.equal(torch.cat(model.seen), wanted[:20])
    values = clean(dataset.train.pixels[order], inputs) / 255
    plain = (values - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)
    torch.testing.assert_close(wanted, plain, atol=1e-6, rtol=0)
