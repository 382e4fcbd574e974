"""Training steps of a quantized ResNet-20: what quantizing costs beside full precision."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property, partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..backends import can_run, use_backend
from ..functional import kd_loss
from ..models import build
from ..quant import calibrate, fuse, quantize
from ..quant.layers import QuantLayer
from ..quant.weight_cache import WeightCache
from .kd_loss import eager as eager_kd_loss
from .measure import Case, Inputs, Provider
from .quantizer import round_ste

CLASSES, SIDE = 10, 32
METHODS = ("lsq", "pact", "dorefa", "ewgs")
# relative error allowed in the loss: a value on a tie may be rounded to either side
TOLERANCE = 1e-3
# what is fused rounds less often between its parts: in 16 bits that moves many values over ties, in
# float32 one now and then, which in a loss of few images shows as much
FUSED_TOLERANCE = 0.05


class LSQFormula(nn.Module):
    """LSQ as the chain of ATen ops that repositories write, with a quantizer's parameters."""

    phase = None  # a layer asks whether it is being calibrated

    def __init__(self, step: nn.Parameter, low: int, high: int, scale: float | None = None) -> None:
        super().__init__()
        self.step, self.low, self.high, self.scale = step, low, high, scale

    def forward(self, x: Tensor) -> Tensor:
        """Quantize; without a scale of its own, the gradient has that of one sample's features."""
        g = self.scale or (x[0].numel() * self.high) ** -0.5
        step = (self.step - self.step * g).detach() + self.step * g
        return round_ste(torch.clamp(x / step, self.low, self.high)) * step


def with_formulas(student: nn.Module) -> nn.Module:
    """Return a copy of an LSQ student that quantizes by the formula."""
    student = copy.deepcopy(student)
    WeightCache.detach(student)
    for layer in [m for m in student.modules() if isinstance(m, QuantLayer)]:
        weight: Any = layer.weight_quantizer
        activation: Any = layer.act_quantizer
        formula: Any
        if weight is not None:
            formula = LSQFormula(weight.step, -weight.qmax - 1, weight.qmax, weight.grad_scale)
            layer.weight_quantizer = formula
        if activation is not None:
            low = -activation.qmax - 1 if activation.known_signed else 0
            formula = LSQFormula(activation.step, low, activation.qmax)
            layer.act_quantizer = formula
    return student


class Workload:
    """A batch, the networks that a step may train on it, and an optimizer for each.

    ``single`` is the student without its weight cache: it quantizes weight by weight. ``fused``
    runs its chains of BatchNorm, ReLU and quantizer as one op each.
    """

    def __init__(
        self, num_images: int, bits: int, method: str, distilled: bool, device: str
    ) -> None:
        self.x = torch.randn(num_images, 3, SIDE, SIDE, device=device)
        self.y = torch.arange(num_images, device=device) % CLASSES
        self.plain = build("resnet20", CLASSES).to(device)
        self.student = quantize(self.plain, weight_bits=bits, act_bits=bits, method=method)
        calibrate(self.student, self.x)
        self.student.train()
        self.teacher = build("resnet20", CLASSES).to(device).eval() if distilled else None
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.compiled: dict[str, Any] = {}

    @cached_property
    def single(self) -> nn.Module:
        """The student without its weight cache."""
        single = copy.deepcopy(self.student)
        WeightCache.detach(single)
        return single

    @cached_property
    def fused(self) -> nn.Module:
        """The student with its chains fused."""
        return fuse(self.student).train()

    @cached_property
    def formula(self) -> nn.Module:
        """The student with the formulas in place of our ops."""
        return with_formulas(self.student)

    def loss(self, network: Callable[[Tensor], Tensor], ours: bool) -> Tensor:
        """Return the loss, distilled by our op or by PyTorch's where there is a teacher."""
        if self.teacher is None:
            return nn.functional.cross_entropy(network(self.x), self.y)
        with torch.no_grad():
            wanted = self.teacher(self.x)
        loss: Tensor = (kd_loss if ours else eager_kd_loss)(network(self.x), wanted, self.y)
        return loss

    def optimizer(self, name: str) -> torch.optim.Optimizer:
        """Return a network's optimizer, of rate 0: every round then finds the same weights."""
        if name not in self.optimizers:
            parameters = getattr(self, name).parameters()
            self.optimizers[name] = torch.optim.SGD(parameters, lr=0.0, momentum=0.9)
        return self.optimizers[name]

    def forward(self, name: str, compiled: bool) -> Callable[[Tensor], Tensor]:
        """Return a network, compiled or as it is."""
        network: Callable[[Tensor], Tensor] = getattr(self, name)
        if not compiled:
            return network
        if name not in self.compiled:
            self.compiled[name] = torch.compile(network, dynamic=False)
        found: Callable[[Tensor], Tensor] = self.compiled[name]
        return found


@dataclass(frozen=True)
class Step:
    """A provider: forward, loss, backward and SGD of one of a workload's networks."""

    network: Literal["plain", "student", "single", "fused", "formula"]
    backend: str | None = None
    compiled: bool = False

    def __call__(self, work: Workload) -> tuple[Workload, "Step", Tensor]:
        """Return what was done, and the loss."""
        optimizer = work.optimizer(self.network)
        with use_backend(self.backend):
            optimizer.zero_grad()
            loss = work.loss(work.forward(self.network, self.compiled), self.ours)
            loss.backward()
        optimizer.step()
        return work, self, loss.detach()

    @property
    def ours(self) -> bool:
        """Whether our ops are in it."""
        return self.network in ("student", "single", "fused")


def by_backend(device: str) -> dict[str, Provider]:
    """Return the student's steps; ``-single`` quantizes weight by weight, ``-fused`` has chains."""
    found: dict[str, Provider] = {}
    for backend in ("reference", "triton", "native"):
        if can_run("lsq", backend, device, torch.float32) is None:
            found[f"{backend}-single"] = Step("single", backend)
            found[backend] = Step("student", backend)
            found[f"{backend}-fused"] = Step("fused", backend)
    del found["reference-single"], found["reference-fused"]
    return found


def compiled_too(device: str) -> dict[str, Provider]:
    """Return steps as they are and by torch.compile; ``eager`` and ``compile`` have formulas.

    ``inline-compile`` is what a compiled student gets: our formulas where the table says so.
    """
    found: dict[str, Provider] = {"fp32-compile": Step("plain", compiled=True)}
    found |= {"eager": Step("formula"), "compile": Step("formula", compiled=True)}
    if can_run("lsq", "native", device, torch.float32) is None:
        found["native"] = Step("student", "native")
        found["native-compile"] = Step("student", "native", compiled=True)
    found["inline-compile"] = Step("student", compiled=True)
    return found


@dataclass(frozen=True)
class StepBenchmark:
    """Forward, loss, backward and SGD; a form is a method of ``quantize``.

    Args:
        op: the benchmark's name.
        bits: of weights and activations.
        distilled: whether a teacher of the same size runs, too.
        students: providers besides the step in full precision.
        forms: methods.
    """

    op: str
    bits: int
    distilled: bool = False
    students: Callable[[str], dict[str, Provider]] = by_backend
    forms: tuple[str, ...] = METHODS
    size_unit: Literal["images"] = "images"

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``."""
        return {"fp32": Step("plain"), **self.students(device)}

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return a step on ``size`` images, under autocast when ``dtype`` has 16 bits."""

        @cache  # networks are compiled once
        def make() -> Inputs:
            return (Workload(size, self.bits, form, self.distilled, device),)

        return Case(
            op=self.op,
            numel=size,
            dtype=dtype,
            form=form,
            device=device,
            bind=partial(bind, dtype, device),
            make=make,
            verify=partial(verify, dtype, device),
            num_images=size,
            rotates=False,
        )


def bind(dtype: torch.dtype, device: str, provider: Provider) -> Provider:
    """Return a call of the provider under autocast when ``dtype`` has 16 bits."""

    def run(*inputs: object) -> Any:
        with torch.autocast(device, dtype, enabled=dtype != torch.float32):
            return provider(*inputs)

    return run


def verify(
    dtype: torch.dtype, device: str, result: tuple[Workload, Step, Tensor], inputs: Inputs
) -> str | None:
    """Compare the loss with that of the reference backend, or of the plain network."""
    work, step, loss = result
    network = work.plain if step.network == "plain" else work.student
    with use_backend("reference"), torch.autocast(device, dtype, dtype != torch.float32):
        wanted = work.loss(network, ours=step.ours)
    rounds_less = step.network == "fused" or (step.compiled and dtype != torch.float32)
    allowed = FUSED_TOLERANCE if rounds_less else TOLERANCE
    return None if torch.allclose(loss, wanted, allowed) else "its loss is wrong"


STEP = StepBenchmark("step", bits=2)
KD_STEP = StepBenchmark("kd_step", bits=4, distilled=True)
COMPILED_STEP = StepBenchmark(
    "compiled_step", bits=4, distilled=True, students=compiled_too, forms=("lsq",)
)
