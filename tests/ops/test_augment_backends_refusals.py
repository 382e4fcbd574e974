"""What the native and Triton augmentation refuse, and wild numbers that reach nothing outside."""

from dataclasses import replace

import pytest
import torch

from daqakd._ops import AUGMENT_KINDS
from daqakd.functional import augment

from ..helpers.plans import example_plan, random_pixels
from .test_augment_backends import compare, in_bytes, runs_on

pytestmark = pytest.mark.usefixtures("poisoned_empty")


@pytest.mark.parametrize(
    ("name", "value"), [("index", 9), ("index", -1), ("setting", 99), ("setting", -1)]
)
def test_rows_out_of_range_are_refused(name, value):
    """A wrong plan must not read wild memory."""
    runs_on("native")
    plan = example_plan(9)
    getattr(plan, name).view(-1)[4] = value
    with pytest.raises(RuntimeError, match=f"{name}: expected values from 0"):
        augment(random_pixels(9), plan, backend="native")


@pytest.mark.parametrize("value", [-1, 99])
@pytest.mark.parametrize("name", ["index", "setting", "partner"])
def test_rows_out_of_range_stop_triton(name, value, monkeypatch):
    """As on a GPU, where nothing can be read back before the launch: an assertion in the kernel."""
    runs_on("triton")
    from triton.runtime import interpreter

    builder = interpreter.interpreter_builder
    asserting = replace(builder.options, debug=True, sanitize_overflow=False)
    monkeypatch.setattr(builder, "options", asserting)
    plan = example_plan(3, 1, 1, "cutmix")
    getattr(plan, name).view(-1)[1] = value
    with pytest.raises(Exception, match=f"{name}: expected a row"):
        augment(random_pixels(3), plan, backend="triton")


@pytest.mark.parametrize("value", [-1, 99])
@pytest.mark.parametrize("name", ["index", "setting", "partner"])
def test_rows_out_of_range_stop_the_kernel(name, value):
    """As on a GPU: a trap."""
    runs_on("emulated")
    plan = example_plan(3, 1, 1, "cutmix")
    getattr(plan, name).view(-1)[1] = value
    with pytest.raises(RuntimeError, match="__trap"):
        augment(random_pixels(3), plan, backend="emulated")


@pytest.mark.parametrize("name", ["crop", "setting", "share", "erase", "box", "values"])
def test_shapes_are_checked(name):
    runs_on("native")
    plan = example_plan(9, 3, 3, "cutmix")
    short = replace(plan, **{name: getattr(plan, name)[:2]})
    with pytest.raises(RuntimeError, match=f"{name}: its dtype or shape"):
        augment(random_pixels(9), short, backend="native")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -1e30, 3e9])
def test_wild_magnitudes_read_nothing_outside(bad):
    """Pixels from nowhere are 0."""
    runs_on("native")
    plan = example_plan(1, 1, 1)
    for kind in (4, 5):
        plan.settings.real[kind, 2] = bad
        plan.setting.fill_(kind)
        result = augment(random_pixels(1), in_bytes(plan), dtype=torch.uint8, backend="native")
        assert not result.any()


@pytest.mark.parametrize("factor", [3e9, -3e9, 1e30, -1e30, float("inf"), float("nan")])
def test_wild_factors_clip_as_the_reference_does(factor):
    runs_on("native")
    plan = in_bytes(example_plan(9, 1, 1))
    for name in ("contrast", "color", "sharpness", "contrast_pil", "color_pil", "sharpness_pil"):
        plan.settings.real[:, 0], plan.settings.real[:, 1] = factor, 1 - factor
        plan.setting.fill_(AUGMENT_KINDS[name])
        compare(random_pixels(9), plan, "native", dtype=torch.uint8)
