"""Whole quantized models: a training step on the reference and on the chosen backend agree."""

import pytest
import torch
from torch import nn

import daqakd
from daqakd.backends import choose
from daqakd.models import build

from . import cases

METHODS = ["lsq", "pact", "dorefa", "ewgs"]
OPS = {"lsq": "lsq", "pact": "pact", "dorefa": "dorefa_weight", "ewgs": "ewgs"}


def make(name: str) -> tuple[nn.Module, torch.Tensor]:
    side = 224 if name == "vit_b_16" else 32
    model = build(f"torchvision.models:{name}" if name == "vit_b_16" else name, 10)
    if name == "vit_b_16":
        nn.init.normal_(model.heads.head.weight, std=0.02)  # zero as built: no gradient below it
    return model, torch.randn(4, 3, side, side)


def step(student: nn.Module, x: torch.Tensor, backend: str | None) -> tuple[float, dict]:
    """Return the loss and the quantizers' gradients of one training step."""
    student.zero_grad()
    with daqakd.use_backend(backend):
        loss = nn.functional.cross_entropy(student(x), torch.arange(len(x)))
        loss.backward()
    named = student.named_parameters()
    return loss.item(), {n: p.grad.clone() for n, p in named if "quantizer" in n}


def agree(name: str, method: str) -> None:
    cases.require(OPS[method], "native")
    torch.manual_seed(0)
    model, x = make(name)
    student = daqakd.quantize(model, weight_bits=2, act_bits=2, method=method)
    # evaluation mode: no dropout, and BatchNorm keeps the statistics of the first step
    daqakd.calibrate(student, x).eval()
    assert choose(OPS[method], x) == "native"
    loss, gradients = step(student, x, None)
    wanted, expected = step(student, x, "reference")
    assert loss == pytest.approx(wanted, rel=1e-4)
    steps = [g for g in gradients.values() if g.numel()]
    assert all(g.isfinite().all() for g in steps)
    assert method == "dorefa" or sum(bool(g.any()) for g in steps) > 0.9 * len(steps)
    for key, grad in gradients.items():
        scale = expected[key].abs().max().clamp(min=1e-6)
        torch.testing.assert_close(grad / scale, expected[key] / scale, rtol=0, atol=2e-2)


@pytest.mark.parametrize("method", METHODS)
def test_resnet20_agrees_with_the_reference(method):
    agree("resnet20", method)


# left out: untrained at 2 bits, MobileNetV2 is dead with LSQ and PACT, and a ViT's loss hangs on
# single rounding ties with DoReFa weights
LARGER = [
    *(("resnet18", method) for method in METHODS),
    *(("vgg8", method) for method in METHODS),
    ("mobilenet_v2", "dorefa"),
    ("mobilenet_v2", "ewgs"),
    ("vit_b_16", "lsq"),
    ("vit_b_16", "ewgs"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "method"), LARGER)
def test_larger_models_agree_with_the_reference(name, method):
    agree(name, method)
