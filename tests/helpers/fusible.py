"""Models to fuse, and what a fused student has in common with its original."""

from collections.abc import Callable
from typing import Any

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

import daqakd
from daqakd._ops import ACTIVATION_CODES, METHOD_CODES
from daqakd.models import build
from daqakd.models.vgg import LARGE, LargeImagePool
from daqakd.quant.fusion import chain

from .small import SlimResNet

CHAINS = 5  # of SlimResNet


class OpCalls:
    """Counts the calls of ``bn_act_quant`` that chains make, and keeps their options by name."""

    def __init__(self) -> None:
        self.made: list[dict[str, Any]] = []

    def __enter__(self) -> "OpCalls":
        self.op = vars(chain)["run_checked"]
        vars(chain)["run_checked"] = self._call
        return self

    def __exit__(self, *args: Any) -> None:
        vars(chain)["run_checked"] = self.op

    def _call(self, x: Tensor, residual: Tensor | None, *rest: Any) -> Any:
        given, methods = rest[-1], {code: name for name, code in METHOD_CODES.items()}
        self.made.append(
            {
                "activation": list(ACTIVATION_CODES)[given.activation],
                "residual": residual,
                "training": given.training,
                "method": methods.get(given.quantizer.method),
            }
        )
        return self.op(x, residual, *rest)

    def __len__(self) -> int:
        return len(self.made)


def vgg(batch_norm: bool) -> nn.Module:
    layers = torchvision.models.vgg.make_layers([8, "M", 12, 12, "M", 16, 16], batch_norm)
    return nn.Sequential(layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10))


def densenet() -> nn.Module:
    model: nn.Module = torchvision.models.DenseNet(8, (2, 3), 16, num_classes=10)
    return model


def resnet10() -> nn.Module:
    block = torchvision.models.resnet.BasicBlock
    model: nn.Module = torchvision.models.ResNet(block, [1, 1, 1, 1], num_classes=10)
    return model


def torchvisions(name: str, **options: Any) -> Callable[[], nn.Module]:
    def made() -> nn.Module:
        model: nn.Module = torchvision.models.get_model(name, num_classes=10, **options)
        return model

    return made


# name: how it is made, its BatchNorms, those in chains with a quantizer, and in others
ARCHITECTURES: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "resnet20": (lambda: build("resnet20", 10), 19, 18, 1),
    "resnet20-headnorm": (lambda: build("resnet20-headnorm", 10), 20, 19, 1),
    "vgg8": (lambda: build("vgg8", 10), 5, 0, 5),
    "resnet18": (torchvisions("resnet18"), 20, 15, 2),
    "resnet10": (resnet10, 12, 7, 2),
    "mobilenet_v2": (torchvisions("mobilenet_v2", width_mult=0.25), 52, 51, 1),
    "densenet": (densenet, 13, 11, 2),
    "vgg_bn": (lambda: vgg(batch_norm=True), 5, 2, 3),
    "efficientnet_b0": (torchvisions("efficientnet_b0"), 49, 7, 0),
    "mnasnet": (torchvisions("mnasnet0_5"), 52, 51, 1),
    "shufflenet": (torchvisions("shufflenet_v2_x0_5"), 56, 35, 21),
}


def student(name: str, method: str = "lsq", **options: Any) -> Any:
    """A calibrated student in float64: chains and members differ by roundings far from ties."""
    torch.manual_seed(0)
    return quantized(ARCHITECTURES[name][0](), method, **options)


def quantized(model: nn.Module, method: str = "lsq", **options: Any) -> Any:
    bits = {"weight_bits": 4, "act_bits": 4, "first_last": "same", **options}
    without_ties(model)
    made = daqakd.quantize(model.double(), method=method, **bits)
    return daqakd.calibrate(made, images()).train()


def pair(method: str = "lsq", model: nn.Module | None = None) -> tuple[Any, Any]:
    """Return a fused student, of SlimResNet unless another is given, and the student."""
    torch.manual_seed(0)
    plain = quantized(model or SlimResNet(), method)
    return daqakd.fuse(plain), plain


def without_ties(model: nn.Module) -> None:
    """Change what makes a gradient of one rounding: ReLU at exactly 0, equal values in a pool."""
    for name, module in list(model.named_modules()):
        if isinstance(module, _BatchNorm) and module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.3, 0.7)
        parent, _, child = name.rpartition(".")
        if isinstance(module, nn.MaxPool2d):
            mean = nn.AvgPool2d(module.kernel_size, module.stride, module.padding)
            setattr(model.get_submodule(parent), child, mean)
        if isinstance(module, LargeImagePool):
            setattr(model.get_submodule(parent), child, LargeImageMean())


class LargeImageMean(LargeImagePool):
    """Its mean, which has no ties."""

    def forward(self, x: Tensor, side: int) -> Tensor:
        return nn.functional.avg_pool2d(x, 2) if side == LARGE else x


def images(seed: int = 1, side: int = 32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, 3, side, side, generator=generator, dtype=torch.float64)


def step(model: nn.Module, x: Tensor | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """Return outputs and gradients, with the input's, of one pass in the mode the model is in."""
    x = (images(2) if x is None else x).requires_grad_()
    torch.manual_seed(3)  # for dropout
    y = model(x)
    named = {"input": x, **dict(model.named_parameters())}
    loss = y.square().mean()
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return y.detach(), {k: g for k, g in zip(named, found, strict=True) if g is not None}


def chains_run(model: nn.Module) -> int:
    """Return how many chains one forward pass runs as one op."""
    with OpCalls() as calls:
        model(images())
    return len(calls)


def assert_alike(fused: nn.Module, plain: nn.Module, x: Tensor | None = None) -> None:
    """Require the same outputs, gradients and state, to roundings of float64."""
    (y, grads), (wanted, wanted_grads) = step(fused, x), step(plain, x)
    torch.testing.assert_close(y, wanted, rtol=1e-9, atol=1e-9 * float(wanted.abs().max()))
    assert grads.keys() == wanted_grads.keys()
    largest = max(float(gradient.abs().max()) for gradient in wanted_grads.values())
    for name, gradient in wanted_grads.items():
        torch.testing.assert_close(grads[name], gradient, rtol=1e-7, atol=1e-10 * largest)
    state, wanted_state = fused.state_dict(), plain.state_dict()
    assert list(state) == list(wanted_state)
    for name, value in wanted_state.items():
        torch.testing.assert_close(state[name], value, rtol=1e-10, atol=1e-12)
