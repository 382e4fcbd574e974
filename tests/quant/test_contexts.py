"""Students under inference mode, whole-model checkpoints, tied weights and sharding."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.utils.checkpoint import checkpoint

import daqakd

from ..helpers.small import SmallNet
from .test_quant import METHODS, calibrated, images
from .test_reads_from_outside import Encoder


@pytest.mark.parametrize("method", METHODS)
def test_inference_mode_gives_the_same(method):
    student = calibrated(method).eval()
    x = images()
    with torch.no_grad():
        wanted = student(x)
    with torch.inference_mode():
        assert torch.equal(student(x), wanted)
        assert torch.equal(student(x.clone()), wanted), "an input that is an inference tensor"
        born = daqakd.calibrate(daqakd.quantize(SmallNet(), weight_bits=2, act_bits=2), x)
        assert born(x).isfinite().all()
    student.train()(x).sum().backward()


def test_an_inference_tensor_changed_in_place_is_quantized_again():
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x + 0
            first = self.a(x)
            x.mul_(0.25)
            return first + self.b(x)

    student = daqakd.quantize(Shared(), weight_bits=None, act_bits=3, method="dorefa")
    x = torch.rand(5, 4)
    daqakd.calibrate(student, x)
    with torch.no_grad():
        wanted = student(x)
    with torch.inference_mode():
        assert torch.equal(student(x), wanted)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_checkpoint_around_the_whole_model(method, reentrant):
    student = calibrated(method).train()
    twin = copy.deepcopy(student)
    for _ in range(2):
        x = images().requires_grad_()
        y = checkpoint(student, x, use_reentrant=reentrant)
        assert torch.equal(y, twin(x))
        y.sum().backward()
        twin(x).sum().backward()
    for a, b in zip(student.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)


class Tied(nn.Module):
    """Two layers of one weight, one layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(6, 6) for _ in range(3))
        self.b.weight = self.a.weight
        self.again = self.c

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.c(self.b(self.a(x))))


@pytest.mark.parametrize("method", METHODS)
def test_tied_weights_and_modules_of_two_names(method):
    x = torch.randn(5, 6)
    student = daqakd.quantize(Tied(), weight_bits=3, act_bits=3, method=method)
    daqakd.calibrate(student, x)
    assert student.a.weight is student.b.weight
    assert student.again is student.c
    student(x).square().mean().backward()
    optimizer = torch.optim.SGD(daqakd.param_groups(student, 0.1, 0.0), lr=0.1)
    optimizer.step()
    other = daqakd.quantize(Tied(), weight_bits=3, act_bits=3, method=method)
    other.load_state_dict(student.state_dict())
    assert torch.equal(other(x), student(x))
    macs = {row.name: row.macs for row in daqakd.summary(student).layers}
    assert macs == {"a": 36, "b": 36, "c": 72}


@pytest.fixture
def process_group():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("save", ["values", "codes"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")  # torch's own
def test_fully_sharded(save, method, process_group):
    x = torch.randn(4, 5, 6)
    student = daqakd.quantize(Encoder(), weight_bits=4, act_bits=4, method=method, save=save)
    daqakd.calibrate(student, x).eval()
    twin, mesh = copy.deepcopy(student), init_device_mesh("cpu", (1,))
    for layer in student.encoder.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(student, mesh=mesh)
    for model in (student, twin):
        model(x).square().mean().backward()
        torch.optim.SGD(model.parameters(), lr=0.01).step()
    assert torch.equal(student(x), twin(x))
