"""Random-resized-crop and colour jitter: Pillow's and torchvision's pixels, torchvision's law."""

import itertools

import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from daqakd import InputError, InputSpec, register_strategy
from daqakd.augment import ResizedCrop, Stream, get_strategy
from daqakd.functional import color_jitter, resized_crop
from daqakd.functional._resize import _pass, _windows

from ..helpers.pictures import from_pil, pictures, to_pil
from ..helpers.small import small_images

# share of pixels that may differ by 1: ties fall otherwise on CPUs without fused sums
FUSED = torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512")
RESIZE_LIMIT = 0 if FUSED else 1e-2
BILINEAR = {"mode": "bilinear", "align_corners": False, "antialias": True}
JITTER = ("brightness", "contrast", "saturation", "hue")
each_semantics = pytest.mark.parametrize("semantics", ["pil", "torchvision"])
each_source = pytest.mark.parametrize("source", ["adversarial", "real"])


def boxes(count: int, height: int, width: int) -> Tensor:
    """Every kind of box: the whole image, one pixel, one row, one column, and random ones."""
    corners = torch.rand(count, 4)
    wide, tall = (1 + (corners[:, i] * s).long() for i, s in ((0, width), (1, height)))
    left, top = (
        (corners[:, 2] * (width - wide + 1)).long(),
        (corners[:, 3] * (height - tall + 1)).long(),
    )
    drawn = torch.stack([left, top, left + wide, top + tall], 1)
    x, y = width // 2, height // 2
    special = [
        [0, 0, width, height],
        [x, y, x + 1, y + 1],
        [0, y, width, y + 1],
        [x, 0, x + 1, height],
    ]
    return torch.cat([torch.tensor(special), drawn])[:count].int()


def expected_crop(image: Tensor, box: Tensor, size: int, semantics: str) -> Tensor:
    from torchvision.transforms.functional import resized_crop as crop

    left, top, right, bottom = box.tolist()
    place = top, left, bottom - top, right - left
    if semantics == "torchvision":
        return crop(image, *place, [size, size], antialias=True)
    # an axis at a time: Pillow 13 may go down first, earlier versions never do
    across = crop(to_pil(image), *place, [bottom - top, size])
    return from_pil(crop(across, 0, 0, bottom - top, size, [size, size]))


def differing_crops(images: Tensor, size: int, semantics: str, count: int) -> float:
    """Return the share of pixels that differ over ``count`` boxes."""
    index = torch.arange(count) % len(images)
    box = boxes(count, *images.shape[-2:])
    result = resized_crop(images, index, box, size, semantics=semantics)
    wanted = [expected_crop(images[i], b, size, semantics) for i, b in zip(index, box, strict=True)]
    difference = (result.int() - torch.stack(wanted).int()).abs()
    assert difference.max() <= (0 if semantics == "pil" else 1)
    return float((difference > 0).float().mean())


@each_source
@each_semantics
@pytest.mark.parametrize("size", [224, 64, 24, 7, 1])
def test_crops_have_the_pixels_of_torchvision(size, semantics, source):
    limit = 0 if semantics == "pil" else RESIZE_LIMIT
    assert differing_crops(pictures(source, 64), size, semantics, 60) <= limit


@pytest.mark.parametrize("size", [1, 3, 7, 9, 13, 24, 64, 224])
def test_weights_are_those_of_pytorch_s_kernel_bit_by_bit(size):
    """One bright pixel after the other shows its weights in every output pixel."""
    for length in range(1, 91):
        spots = torch.eye(length)[:, None, None]
        wanted = interpolate(spots, size=[1, size], **BILINEAR)[:, 0, 0]
        start, whole = torch.tensor([0]), torch.tensor([length])
        place, weight, count = _windows(start, whole, size, length, torch.float32)
        used = torch.arange(place.shape[2]) < count[..., None]
        result = torch.zeros(size, length).scatter_add_(1, place[0], (weight * used)[0])
        assert torch.equal(result.T, wanted), length


@pytest.mark.skipif(not FUSED, reason="PyTorch's sums on this CPU are not fused")
@pytest.mark.parametrize("size", [1, 3, 7, 9, 13, 24, 64, 224])
def test_sums_are_those_of_pytorch_s_kernel_bit_by_bit(size):
    for length in (7, 17, 40, 57, 64, 90):
        images = torch.randint(0, 256, (2, 3, length, length)).float()
        start, whole = torch.zeros(2, dtype=torch.int64), torch.full((2,), length)
        windows = _windows(start, whole, size, length, torch.float32)
        result = _pass(_pass(images, *windows, 3), *windows, 2)
        assert torch.equal(result, interpolate(images, size=[size, size], **BILINEAR)), length


@pytest.mark.parametrize("shape", [(1, 1), (2, 5), (3, 3), (40, 24), (17, 90)], ids=str)
@each_semantics
def test_odd_shapes(shape, semantics):
    images = torch.randint(0, 256, (5, 3, *shape)).byte()
    for size in (1, 3, 31):
        assert differing_crops(images, size, semantics, 30) <= RESIZE_LIMIT


@pytest.mark.slow
@each_semantics
@pytest.mark.parametrize(("size", "count"), [(224, 1200), (64, 3000), (7, 60_000)])
def test_crops_of_many_images(size, count, semantics):
    """The share of millions of pixels that differ."""
    share = differing_crops(pictures("real", 64, 200), size, semantics, count)
    assert share <= (0 if semantics == "pil" else RESIZE_LIMIT)


def test_enlarging_equals_pillow_of_any_version_in_one_call():
    from torchvision.transforms.functional import resized_crop as crop

    images, box = pictures("adversarial", 64), boxes(8, 64, 64)
    result = resized_crop(images, torch.arange(8), box, 224)
    for image, got, (left, top, right, bottom) in zip(images, result, box.tolist(), strict=True):
        place = top, left, bottom - top, right - left
        assert torch.equal(got, from_pil(crop(to_pil(image), *place, [224, 224])))


def test_a_box_of_the_wanted_size_is_a_copy():
    images = pictures("adversarial", 32)
    for semantics in ("pil", "torchvision"):
        whole = torch.tensor([[0, 0, 32, 32]]).expand(8, -1)
        result = resized_crop(images, torch.arange(8), whole, 32, semantics=semantics)
        assert torch.equal(result, images)


def adjusted(image: Tensor, name: str, factor: float, semantics: str) -> Tensor:
    from torchvision.transforms import functional

    adjust = getattr(functional, f"adjust_{name}")
    if semantics == "torchvision":
        return adjust(image, factor)
    return from_pil(adjust(to_pil(image), factor))


def one_adjustment(images: Tensor, name: str, factor: Tensor, semantics: str) -> Tensor:
    """Jitter with everything but ``name`` left out, by the function that the jitter calls."""
    from daqakd.functional._jitter import JITTERS

    return JITTERS[JITTER.index(name)](images, factor, semantics == "pil")


@each_source
@each_semantics
@pytest.mark.parametrize("name", JITTER)
def test_each_adjustment_has_the_pixels_of_torchvision(name, semantics, source):
    images = pictures(source, 32)
    hue = name == "hue"
    factors = [-0.5, -0.1, 0.0, 0.003, 0.1, 0.5] if hue else [0.0, 0.8, 0.93, 1.0, 1.2, 2.0]
    for value in [*factors, *(torch.rand(6) - 0.5 + (0 if hue else 1)).tolist()]:
        factor = torch.full((len(images),), value)
        result = one_adjustment(images, name, factor, semantics)
        for image, got in zip(images, result, strict=True):
            assert torch.equal(got, adjusted(image, name, factor[0].item(), semantics)), value


def colours(step: int):
    """Yield every ``step``-th of all 2^24 colours, as images of 2^18."""
    for code in torch.arange(0, 2**24, step).split(2**18):
        planes = [(code >> shift) & 255 for shift in (16, 8, 0)]
        yield torch.stack(planes).view(1, 3, 512, 512).byte()


@each_semantics
@pytest.mark.parametrize("step", [64, pytest.param(1, marks=pytest.mark.slow)])
def test_the_hue_of_all_colours(step, semantics):
    for image in colours(step):
        for value in (-0.37, 0.1, 0.0):
            factor = torch.tensor([value])
            result = one_adjustment(image, "hue", factor, semantics)[0]
            assert torch.equal(result, adjusted(image[0], "hue", factor.item(), semantics))


@each_semantics
def test_jitter_follows_each_image_s_own_order(semantics):
    orders = torch.tensor(list(itertools.permutations(range(4))))
    images = pictures("adversarial", 32).repeat(3, 1, 1, 1)
    factor = torch.rand(24, 4) * 0.4 + 0.8
    factor[:, 3] = torch.rand(24) * 0.2 - 0.1
    result = color_jitter(images, factor, orders, semantics=semantics)
    for i, image in enumerate(images):
        for part in orders[i].tolist():
            image = adjusted(image, JITTER[part], factor[i, part].item(), semantics)
        assert torch.equal(result[i], image), i


def test_jitter_without_picking_rows_has_the_same_pixels(monkeypatch):
    """What runs on a GPU, run here: every adjustment on all images."""
    from daqakd.functional import _jitter as reference_jitter

    images = pictures("adversarial", 32)
    pipeline = ResizedCrop(32)
    factor, order = pipeline.factors(0, 0, torch.arange(8))
    picked = color_jitter(images, factor, order)
    for position in range(4):
        images = reference_jitter.on_all(images, factor, order[:, position], True, range(4))
    assert torch.equal(images, picked)


@each_semantics
@pytest.mark.parametrize("left_out", JITTER)
def test_a_part_of_the_jitter_that_is_0_is_left_out(left_out, semantics):
    """As in torchvision: its hue alone would change Pillow's pixels, turned by 0."""
    images, rows = pictures("adversarial", 32), torch.arange(8)
    jitter = [0.0 if name == left_out else 0.3 for name in JITTER]
    pipeline = ResizedCrop(32, (1.0, 1.0), (1.0, 1.0), jitter)
    result = pipeline.apply(images, rows, 0, 0, rows, semantics)
    factor, order = pipeline.factors(0, 0, rows)
    for i, image in enumerate(images):
        for part in order[i].tolist():
            if JITTER[part] != left_out:
                image = adjusted(image, JITTER[part], factor[i, part].item(), semantics)
        assert torch.equal(result[i], image), i


def test_no_jitter_is_no_jitter():
    images, rows = pictures("adversarial", 32), torch.arange(8)
    results = [
        ResizedCrop(24, jitter=jitter).apply(images, rows, 0, 0, rows, "pil")
        for jitter in (None, (0, 0, 0, 0))
    ]
    assert torch.equal(*results)


def test_equal_pipelines_read_the_same():
    one, other = ResizedCrop(24, (0.5, 1.0), (1.0, 2.0)), ResizedCrop(24, [0.5, 1], [1, 2])
    assert (one, repr(one)) == (other, repr(other))


def test_callers_tensors_are_not_written():
    images = pictures("adversarial", 32)
    before, pipeline = images.clone(), ResizedCrop(20)
    pipeline.apply(images, torch.arange(8), 0, 0, torch.arange(8), "pil")
    color_jitter(images, *pipeline.factors(0, 0, torch.arange(8)))
    assert torch.equal(images, before)


def test_the_law_of_the_boxes_is_torchvision_s():
    """Means of area, ratio and place over 20,000 boxes, against torchvision's own draws."""
    from torchvision.transforms import RandomResizedCrop

    pipeline, count, side = ResizedCrop(), 20_000, 64
    box = pipeline.boxes(0, 0, torch.arange(count), side, side).double()
    theirs = [
        RandomResizedCrop.get_params(torch.empty(3, side, side), pipeline.scale, pipeline.ratio)
        for _ in range(4000)
    ]
    top, left, tall, wide = torch.tensor(theirs, dtype=torch.float64).t()

    def facts(left, top, wide, tall):
        place = [left / (side - wide).clamp(min=1), top / (side - tall).clamp(min=1)]
        return torch.stack([wide * tall / side**2, (wide / tall).log(), *place, wide, tall], 1)

    own = facts(box[:, 0], box[:, 1], box[:, 2] - box[:, 0], box[:, 3] - box[:, 1])
    other = facts(left, top, wide, tall)
    for statistic in (lambda v: v, lambda v: v**2):
        a, b = statistic(own), statistic(other)
        error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
        assert ((a.mean(0) - b.mean(0)).abs() < 4.5 * error).all()
    assert box.min() >= 0
    assert box.max() <= side
    assert (own[:, 0] > 0.07).all()


@pytest.mark.parametrize(("height", "width"), [(10, 90), (90, 10), (40, 40)])
def test_where_no_box_fits_it_is_in_the_middle(height, width):
    from torchvision.transforms import RandomResizedCrop

    scale, ratio = (1.0, 1.0), (1.3, 1.4)
    pipeline = ResizedCrop(8, scale, ratio)
    top, left, tall, wide = RandomResizedCrop.get_params(
        torch.empty(3, height, width), scale, ratio
    )
    box = pipeline.boxes(0, 0, torch.arange(3), height, width)
    assert box.tolist() == [[left, top, left + wide, top + tall]] * 3


def test_the_law_of_the_jitter():
    factor, order = ResizedCrop().factors(0, 0, torch.arange(24_000))
    reach, middle = torch.tensor([0.2, 0.2, 0.2, 0.1]), torch.tensor([1.0, 1.0, 1.0, 0.0])
    unit = (factor - middle) / reach
    assert unit.abs().max() <= 1 + 1e-5
    assert (unit.mean(0).abs() < 4.5 / (3 * 24_000) ** 0.5).all()
    assert ((unit**2).mean(0) - 1 / 3).abs().max() < 0.01
    assert torch.corrcoef(unit.t()).fill_diagonal_(0).abs().max() < 0.03
    codes, counts = (order * torch.tensor([64, 16, 4, 1])).sum(1).unique(return_counts=True)
    assert len(codes) == 24
    assert ((counts - 1000.0) ** 2 / 1000).sum() < 60, "chi squared, 23 degrees of freedom"


IMAGES = small_images(40)


def stream(name: str, **options) -> Stream:
    inputs = InputSpec((0.5,) * 3, (0.25,) * 3, ResizedCrop(24))
    settings = {"seed": 3, "inputs": inputs}
    return Stream(IMAGES.pixels, IMAGES.labels, get_strategy(name), **{**settings, **options})


def by_image(batches) -> dict[int, bytes]:
    return {
        int(i): image.numpy().tobytes()
        for batch in batches
        for i, image in zip(batch.index, batch.images, strict=True)
    }


@pytest.mark.parametrize("name", ["minimal", "cutmix", "trivialaugment", "mixup"])
def test_pixels_depend_on_seed_epoch_and_image_alone(name):
    whole = by_image(stream(name).batches(1, [torch.arange(40)]))
    order = torch.randperm(40).split(7)
    assert by_image(stream(name).batches(1, order)) == whole
    assert by_image(stream(name, resident=False).batches(1, order)) == whole
    assert by_image(stream(name).batches(2, [torch.arange(40)])) != whole
    assert by_image(stream(name, seed=4).batches(1, [torch.arange(40)])) != whole


@each_semantics
def test_a_stream_crops_flips_jitters_and_normalises(semantics):
    """Jitter before the flip is jitter after it: no adjustment looks at places."""
    pipeline, index = ResizedCrop(24), torch.arange(40)
    inputs = InputSpec((0.5,) * 3, (0.25,) * 3, pipeline, semantics)
    batch = next(iter(stream("minimal", inputs=inputs).batches(0, [index])))
    images = pipeline.apply(IMAGES.pixels, index, 3, 0, index, semantics)
    values = (images / 255 - 0.5) / 0.25
    mirrored = [torch.allclose(a, b.flip(2)) for a, b in zip(batch.images, values, strict=True)]
    same = [torch.allclose(a, b) for a, b in zip(batch.images, values, strict=True)]
    assert all(m or s for m, s in zip(mirrored, same, strict=True))
    assert 5 < sum(mirrored) < 35


def test_registered_transforms_run_after_torchvision_s_own_pipeline():
    register_strategy("pipeline-own", lambda image: image)
    batches = list(stream("pipeline-own").epoch(0, 8))
    assert batches[0].images.shape == (8, 3, 24, 24)
    assert by_image(stream("pipeline-own").epoch(0, 8)) == by_image(batches)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda p, i, b: resized_crop(p.float(), i, b, 8),
            r"pixels: expected uint8 \[N, 3, H, W\]",
        ),
        (lambda p, i, b: resized_crop(p, i.int(), b, 8), r"index: expected int64 \[R\]"),
        (lambda p, i, b: resized_crop(p, i, b[:1], 8), r"box: expected int32 or int64 \[40, 4\]"),
        (lambda p, i, b: resized_crop(p, i, b, 0), "size: expected at least 1"),
        (lambda p, i, b: resized_crop(p, i, b, 8, semantics="pill"), "Did you mean 'pil'"),
        (lambda p, i, b: color_jitter(p, b, b.long()), r"factor: expected torch.float32 \(40, 4\)"),
        (lambda p, i, b: color_jitter(p, b.float(), b), r"order: expected torch.int64 \(40, 4\)"),
        (lambda p, i, b: ResizedCrop(0), "size: expected an integer from 1"),
        (lambda p, i, b: ResizedCrop(24.0), "size: expected an integer from 1 to 32768, got 24.0"),  # type: ignore[arg-type]
        (lambda p, i, b: ResizedCrop(scale=(0.5, 2)), "scale: expected shares"),
        (lambda p, i, b: ResizedCrop(scale=(float("nan"), 1)), "scale: expected shares"),
        (lambda p, i, b: ResizedCrop(scale=0.5), "scale: expected 2 numbers, got 0.5"),  # type: ignore[arg-type]
        (lambda p, i, b: ResizedCrop(jitter=(0.1, 0.1)), r"jitter: expected 4 numbers, got \(0.1"),  # type: ignore[arg-type]
        (lambda p, i, b: ResizedCrop(ratio=(1, float("inf"))), "ratio: expected 0 < low <= high"),
        (
            lambda p, i, b: color_jitter(p, b.float(), b.long(), parts=["hues"]),
            "unknown part 'hues'.*Did you mean 'hue'",
        ),
        (lambda p, i, b: ResizedCrop(ratio=(2, 1)), "ratio: expected 0 < low <= high"),
        (lambda p, i, b: ResizedCrop(jitter=(0, 0, 0, 1)), "jitter: expected .* hue from 0 to 0.5"),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(InputError, match=message):
        call(IMAGES.pixels, torch.arange(40), boxes(40, 16, 16))


def test_no_images():
    none = torch.empty(0, dtype=torch.int64)
    images = resized_crop(IMAGES.pixels, none, none.view(0, 1).expand(0, 4), 8)
    assert images.shape == (0, 3, 8, 8)
    factor, order = ResizedCrop().factors(0, 0, none)
    assert color_jitter(images, factor, order).shape == (0, 3, 8, 8)
