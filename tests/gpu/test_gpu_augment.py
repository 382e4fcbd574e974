"""What only a GPU can show of augmentation: values and graphs."""

import pytest
import torch

from daqakd.functional import augment

from ..helpers.pictures import adversarial
from ..helpers.plans import every_row
from ..ops.test_augment_backends import KERNELS, all_settings, policy_plan
from .test_gpu import DTYPES, each_backend, require


def plan_and_pixels(name, device="cuda"):
    """Return a policy's plan and images; those of 224 do not fit into shared memory."""
    side = 224 if name == "augmix-224" else 64 if name == "augmix-64" else 32
    plan = policy_plan(name.split("-224")[0].split("-64")[0], "torchvision", side, 12, "cutmix")
    return plan.to(device), adversarial(side).repeat(2, 1, 1, 1)[:12].to(device)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["randaugment", "augmix", "augmix-64", "augmix-224"])
def test_small_augmentation_agrees_with_the_reference(name, dtype, backend):
    require("augment", torch.uint8, backend)
    plan, pixels = plan_and_pixels(name)
    options = {"dtype": dtype, "channels_last": name == "augmix"}
    found = augment(pixels, plan, backend=backend, **options)
    wanted = augment(pixels.cpu(), plan.to("cpu"), backend="reference", **options)
    assert found.stride() == wanted.stride()
    assert torch.equal(found.cpu(), wanted)


@pytest.mark.gpu
@each_backend
@pytest.mark.parametrize("side", [32, 224])
@pytest.mark.parametrize("kernels", KERNELS)
def test_every_augmentation_setting_gives_the_cpus_pixels(kernels, side, backend):
    require("augment", torch.uint8, backend)
    pixels = adversarial(side)[[2, 4, 6]]
    plan = every_row(all_settings(kernels, side, side), 3)
    found = augment(pixels.cuda(), plan.to("cuda"), dtype=torch.uint8, backend=backend)
    wanted = augment(pixels, plan, dtype=torch.uint8)
    assert torch.equal(found.cpu(), wanted)


@pytest.mark.gpu
@each_backend
def test_augmentation_is_captured_in_a_graph(backend):
    require("augment", torch.uint8, backend)
    plan, pixels = plan_and_pixels("augmix")
    eager = augment(pixels, plan, backend=backend)
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = augment(pixels, plan, backend=backend)
        graph.replay()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert torch.equal(captured, eager)
    assert torch.equal(augment(pixels, plan, backend=backend), eager)
