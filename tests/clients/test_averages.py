"""Averages of students: SWA and EMA of torch, EMA of timm."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV2, ModelEmaV3
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn

import daqakd

from .loops import Images, check_runs_quantized, norm_model, quantized
from .trial import METHODS, settle

KINDS = {
    "swa": lambda s: AveragedModel(s),
    "swa, buffers": lambda s: AveragedModel(s, use_buffers=True),
    "ema": lambda s: AveragedModel(s, multi_avg_fn=get_ema_multi_avg_fn(0.9)),
    "ema, buffers": lambda s: AveragedModel(
        s, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
    ),
    "timm v2": lambda s: ModelEmaV2(s, decay=0.9),
    "timm v3": lambda s: ModelEmaV3(s, decay=0.9),
    "timm v3, foreach off": lambda s: ModelEmaV3(s, decay=0.9, foreach=False),
    "timm v3, buffers not averaged": lambda s: ModelEmaV3(s, decay=0.9, exclude_buffers=True),
}


def trained(method, kind):
    """Return a student after three steps, and its average."""
    x, model = Images().images, norm_model()
    settle(model, x)
    student = daqakd.calibrate(quantized(model, method), x)
    average = KINDS[kind](student)
    optimizer = torch.optim.SGD(daqakd.param_groups(student, 1e-3, 1e-4), lr=1e-3)
    for _ in range(3):
        optimizer.zero_grad()
        (student.train()(x) - 1).square().mean().backward()
        optimizer.step()
        if hasattr(average, "update_parameters"):
            average.update_parameters(student)
        else:
            average.update(student)
    return student, average


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", KINDS)
def test_averages_evaluate_quantized_and_as_their_state_says(method, kind):
    x = Images().images
    student, average = trained(method, kind)
    if isinstance(average, AveragedModel):
        update_bn([x], average)
    found = average.module.eval()
    with torch.no_grad():
        wanted = check_runs_quantized(found, x)
    assert wanted.isfinite().all()
    loaded = quantized(norm_model(), method).eval()
    loaded.load_state_dict(copy.deepcopy(found.state_dict()))
    with torch.inference_mode():
        assert torch.equal(loaded(x), wanted)
        assert not torch.equal(student.eval()(x), wanted), "an average of one"
    found.train()(x).sum().backward()
