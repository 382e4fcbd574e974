"""Students with a weight cache, and the calls that it saves."""

import copy
from collections import Counter

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import daqakd
from daqakd.quant.weight_cache import WeightCache

from . import cases
from .small import SmallNet

MANY = {"lsq": "lsq_many", "dorefa": "dorefa_weight_many", "ewgs": "ewgs_many"}


def require_native() -> None:
    """Skip a test where the CPU library is missing: only it takes many weights in one call."""
    for op in MANY.values():
        cases.require(op, "native")


class Calls(TorchDispatchMode):
    """Counts the calls of this project's ops by name."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "daqakd":
            self.of[func.name().removeprefix("daqakd::").split(".")[0]] += 1
        return func(*args, **(kwargs or {}))


def images(seed: int = 0) -> Tensor:
    return torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


def student(method: str = "lsq", model: nn.Module | None = None, **options) -> nn.Module:
    """Return a student whose activations stay whole unless ``act_bits`` is given."""
    torch.manual_seed(0)
    options = {"weight_bits": 3, "act_bits": None, "delta": 0.1} | options
    made = daqakd.quantize(model or SmallNet(), method=method, **options)
    daqakd.calibrate(made, images())
    return made.train()


def without_cache(model: nn.Module) -> nn.Module:
    model = copy.deepcopy(model)
    WeightCache.detach(model)
    return model


def step(model: nn.Module, x: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor | None]]:
    model.zero_grad()
    y = model(images() if x is None else x)
    y.square().mean().backward()
    return y.detach(), {n: p.grad for n, p in model.named_parameters()}


def assert_same_step(model: nn.Module, other: nn.Module) -> None:
    (y, grads), (y2, grads2) = step(model), step(other)
    assert torch.equal(y, y2)
    assert grads.keys() == grads2.keys()
    for name, grad in grads.items():
        other_grad = grads2[name]
        if grad is None or other_grad is None:
            assert grad is other_grad is None, name
        else:
            assert torch.equal(grad, other_grad), name
