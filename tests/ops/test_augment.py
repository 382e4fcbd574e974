"""Following a plan: grouped equals dense, each image stands alone, stages come in their order."""

from dataclasses import replace

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import DynamicOutputShapeException

from daqakd import InputError
from daqakd.augment.plan import Planner
from daqakd.augment.policies import POLICIES, policy
from daqakd.backends.reference.augment import follow
from daqakd.functional import augment

from ..helpers.plans import example_plan, op_arguments, random_pixels

each_plan = pytest.mark.parametrize(
    ("chains", "slots", "mix"),
    [(1, 0, None), (1, 1, None), (1, 2, "cutmix"), (3, 3, None), (3, 3, "cutmix"), (1, 1, "mixup")],
    ids=["none", "one", "two-cutmix", "chains", "chains-cutmix", "mixup"],
)


@each_plan
@pytest.mark.parametrize("size", [(7, 5), (2, 9), (1, 1), (32, 32)], ids=str)
def test_grouped_equals_dense(chains, slots, mix, size):
    arguments = op_arguments(example_plan(40, chains, slots, mix), random_pixels(40, *size))
    assert torch.equal(follow(*arguments, dense=False), follow(*arguments, dense=True))


@each_plan
def test_dense_never_waits_for_a_value(chains, slots, mix):
    """Fake tensors have no values: reading one, as a host sync does, would raise."""
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        arguments = op_arguments(example_plan(9, chains, slots, mix), random_pixels(9))
        fakes = [mode.from_tensor(a) if isinstance(a, torch.Tensor) else a for a in arguments]
        assert follow(*fakes, dense=True).shape[1:] == (3, 7, 5)
        if slots:
            with pytest.raises(DynamicOutputShapeException):
                follow(*fakes, dense=False)


@pytest.mark.parametrize("name", ["augmix", "autoaugment-cifar", "trivialaugment"])
def test_planning_never_waits_for_a_value(name):
    planner = Planner(policy(name, 8, 8), 8, 8, 1, True, True, "cutmix", "image", None, 0)
    planner.plan(0, torch.arange(1))  # makes the table of ratios
    with FakeTensorMode(allow_non_fake_inputs=True):
        plan = planner.plan(0, torch.arange(7), torch.arange(3))
    assert plan.box.shape == (3, 4)


def alone(plan, row):
    """Return the plan of one output row, its partner as a second row."""
    keep = torch.tensor([row] if plan.partner is None else [row, int(plan.partner[row])])
    per_row = ("index", "crop", "flip", "setting", "share", "erase")
    rows = {name: getattr(plan, name) for name in per_row}
    rows = {name: v if v is None else v[keep] for name, v in rows.items()}
    outputs = {name: getattr(plan, name) for name in ("box", "weight")}
    outputs = {name: v if v is None else v[row : row + 1] for name, v in outputs.items()}
    partner = None if plan.partner is None else torch.tensor([1])
    return replace(plan, **rows, **outputs, partner=partner)


@each_plan
def test_an_image_does_not_depend_on_its_batch(chains, slots, mix):
    plan, pixels = example_plan(20, chains, slots, mix), random_pixels(20)
    whole = augment(pixels, plan)
    assert len(whole) == plan.rows
    for row in range(plan.rows):
        assert torch.equal(augment(pixels, alone(plan, row))[0], whole[row])


def test_stages_in_their_order():
    """Crop after the mirror, erase after the operations, the box last."""
    pixels = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    pixels[0] = torch.arange(16).view(4, 4)
    pixels[1] = 100
    plan = example_plan(2, 1, 0, "cutmix")
    plan = replace(
        plan,
        index=torch.tensor([0, 1]),
        crop=torch.tensor([[1, 0], [0, 0]], dtype=torch.int32),
        flip=torch.tensor([True, False]),
        setting=torch.ones(2, 1, 1, dtype=torch.int16),
        erase=torch.tensor([[0, 0, 1, 1], [3, 3, 4, 4]], dtype=torch.int32),
        partner=torch.tensor([1]),
        box=torch.tensor([[2, 2, 4, 4]], dtype=torch.int32),
        values=None,
    )
    result = augment(pixels, plan, dtype=torch.uint8)
    expected = [[0, 249, 250, 251], [244, 245, 246, 247], [240, 241, 155, 155], [255, 255, 155, 0]]
    assert result[0, 0].tolist() == expected


def test_empty_batches():
    plan = example_plan(3)
    rows = {name: getattr(plan, name)[:0] for name in ("index", "crop", "flip", "setting", "erase")}
    assert augment(random_pixels(3), replace(plan, **rows)).shape == (0, 3, 7, 5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_dtypes_are_casts_of_the_values(dtype):
    plan, pixels = example_plan(4), random_pixels(4)
    assert torch.equal(augment(pixels, plan, dtype=dtype), augment(pixels, plan).to(dtype))


@pytest.mark.parametrize(
    ("change", "dtype", "message"),
    [
        ({"values": None}, torch.float32, "dtype: torch.float32 asked for"),
        ({}, torch.uint8, "dtype: torch.uint8 asked for"),
        ({}, torch.int32, "dtype: expected float16"),
        ({"crop": torch.zeros(4, 2)}, torch.float32, "plan.crop: expected torch.int32"),
        ({"partner": torch.arange(3)}, torch.float32, "plan.weight: MixUp"),
        ({"setting": torch.zeros(4, 2, 1).short()}, torch.float32, "plan.share: None allows one"),
    ],
    ids=["no-values", "uint8", "integers", "crop", "mixup", "chains"],
)
def test_what_does_not_fit_is_named(change, dtype, message):
    with pytest.raises(InputError, match=message):
        augment(random_pixels(4), replace(example_plan(4), **change), dtype=dtype)


def test_pixels_are_three_channels_of_bytes():
    with pytest.raises(InputError, match="pixels: expected uint8"):
        augment(random_pixels(4).float(), example_plan(4))


@pytest.mark.gpu
@pytest.mark.parametrize("name", [*POLICIES[1:], "erasing-cutmix"])
def test_a_gpu_plans_and_augments_the_same_bits(name):
    pixels, index, partner = (
        random_pixels(200, 32, 32),
        torch.arange(200),
        torch.arange(200).roll(1),
    )
    extra = name == "erasing-cutmix"
    made = policy("nothing" if extra else name, 32, 32)
    values = torch.randn(3, 256)
    results = []
    for device in ("cpu", "cuda"):
        fixed = made.to(device), 32, 32, 4, True, extra, "cutmix", "image", values.to(device), 0
        plan = Planner(*fixed).plan(3, index.to(device), partner.to(device) if extra else None)
        results.append(augment(pixels.to(device), plan, backend="reference").cpu())
    assert torch.equal(*results)


@pytest.mark.gpu
def test_a_graph_follows_a_plan_that_changes_under_it():
    plans = [example_plan(9, 3, 3, "cutmix").to("cuda") for _ in range(2)]
    pixels = random_pixels(9).cuda()
    plans[1].setting.copy_(plans[1].setting.flip(0))
    wanted = [augment(pixels, plan, backend="reference") for plan in plans]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = augment(pixels, plans[0], backend="reference")
    plans[0].setting.copy_(plans[1].setting)
    graph.replay()
    assert torch.equal(result, wanted[1])
    assert not torch.equal(*wanted)
