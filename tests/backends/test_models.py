"""Whole W2A2 models: a training step on another backend is the reference's step.

The two steps share their rounding decisions (see lockstep.py), for at 2 bits a single tie is
chaotic; the models take full-precision steps first, for untrained ones are dead.
"""

import pytest
import torch
from torch import nn

import daqakd
from daqakd import functional
from daqakd.models import build

from ..helpers import cases
from ..helpers.lockstep import Record, Replay
from ..helpers.small import SlimResNet

METHODS = ["lsq", "pact", "dorefa", "ewgs"]
OPS = {"lsq": ["lsq"], "pact": ["pact", "dorefa_weight"], "ewgs": ["ewgs"]}
OPS["dorefa"] = ["dorefa_activation", "dorefa_weight"]
SIDES = {"slim": 8, "resnet20": 32}
LARGER = ["resnet18", "vgg8", "vit_b_16"]


def make(name: str) -> nn.Module:
    if name == "slim":
        return SlimResNet()
    if name != "vit_b_16":
        return build(name, 10)
    from torchvision.models import vit_b_16

    model = vit_b_16(num_classes=10, image_size=64)
    nn.init.normal_(model.heads.head.weight, std=0.02)  # zero as built: no gradient below it
    return model


def loss_of(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    torch.manual_seed(1)  # the same dropout every time
    return nn.functional.cross_entropy(model(x), torch.arange(len(x)))


def trained(model: nn.Module, x: torch.Tensor) -> nn.Module:
    """Take three full-precision steps, and let BatchNorm know its inputs."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over all steps, without the starting values
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, x).backward()
        optimizer.step()
    return model


def step(student, x, backend, mode) -> tuple[float, dict[str, torch.Tensor]]:
    """Return the loss and all gradients of one training step."""
    student.zero_grad()
    with daqakd.use_backend(backend), mode:
        loss = loss_of(student, x)
        loss.backward()
    return loss.item(), {n: p.grad.clone() for n, p in student.named_parameters()}


def check_gradients(gradients, expected) -> None:
    """Require equal gradients; a single value is a sum that may nearly cancel."""
    smallest = 1e-6 * max(g.norm() for g in expected.values())
    for name, grad in gradients.items():
        assert grad.isfinite().all(), name
        error = (grad - expected[name]).norm() / expected[name].norm().clamp(min=smallest)
        assert error <= (1e-2 if grad.numel() == 1 else 1e-4), f"{name}: {error:.2g}"


def agree(name: str, method: str, backend: str = "native") -> None:
    for op in OPS[method]:
        cases.require(op, backend)
    side = SIDES.get(name, 64)
    x = torch.randn(8, 3, side, side)
    student = daqakd.quantize(trained(make(name), x), method=method, weight_bits=2, act_bits=2)
    daqakd.calibrate(student, x).train()
    record = Record(backend)
    loss, gradients = step(student, x, backend, record)
    replay = Replay("reference", record)
    wanted, expected = step(student, x, "reference", replay)
    replay.finish()
    assert loss == pytest.approx(wanted, rel=1e-5)
    check_gradients(gradients, expected)
    own = [bool(g.any()) for n, g in gradients.items() if "quantizer" in n]
    assert bool(own) == (method != "dorefa")
    assert sum(own) >= 0.9 * len(own), f"{sum(own)} of {len(own)} quantizer parameters learn"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backend", ["native", *cases.SIMULATED])
def test_slim_resnet_agrees_with_the_reference(backend, method):
    agree("slim", method, backend)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_model_agrees_with_the_reference(name, method):
    agree(name, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", LARGER)
def test_larger_model_agrees_with_the_reference(name, method):
    agree(name, method)


@pytest.mark.parametrize(
    ("changed", "message"),
    [(1, "wrong away from every tie"), (2, "2 flips among 9 values"), (0, None)],
)
def test_lockstep_notices_what_is_no_tie(changed, message):
    x = torch.tensor([0.1, 0.5, 1.5, 0.9, 1.2, 2.2, 0.0, 2.9, 3.0])  # ties at 0.5 and 1.5
    record = Record("reference")
    with record:
        y = functional.lsq(x, torch.tensor(1.0), bits=2, signed=False, backend="reference")
    wrong = y.clone()
    wrong[1] = 1.0
    wrong[2] -= float(changed == 2)
    wrong[4] += float(changed == 1)
    replay = Replay("reference", record)
    replay.calls = iter([(name, wrong) for name, _ in record.calls])

    def again():
        with replay:
            return functional.lsq(x, torch.tensor(1.0), bits=2, signed=False, backend="reference")

    if message is None:
        assert torch.equal(again(), wrong)
        assert replay.flips == 1
    else:
        with pytest.raises(AssertionError, match=message):
            again()
