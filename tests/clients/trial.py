"""One model of another library: quantized, calibrated, trained a step, evaluated, saved, copied."""

import copy
import io
import itertools
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_leaves, tree_map

import daqakd

from .witness import Witness, quantized_layers

# transformers looks for a package of this name, and would find the folder beside tests/
sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]

PROJECTIONS = ("in_proj", "q_proj", "k_proj", "v_proj", "out_proj")
METHODS = ("lsq", "pact", "dorefa", "ewgs")


def with_methods(names: Iterable[str]) -> list[tuple[str, str]]:
    """Return the names with the methods in turn."""
    return list(zip(names, itertools.cycle(METHODS), strict=False))


@dataclass
class Subject:
    """A model, what it is called with, and how it is quantized."""

    library: str
    name: str
    build: Callable[[], nn.Module]
    batch: Any
    method: str = "lsq"
    options: dict[str, Any] = field(default_factory=dict)

    def quantize(self, model: nn.Module) -> nn.Module:
        """Return a W4A4 student."""
        return daqakd.quantize(model, weight_bits=4, act_bits=4, method=self.method, **self.options)


@dataclass
class Row:
    """What the table tells of a model."""

    library: str
    name: str
    family: str
    method: str
    quantized: int
    whole: Counter[str]
    fused: str
    loss: float


def call(model: nn.Module, batch: Any) -> Any:
    """Call it as its users do."""
    return model(**batch) if isinstance(batch, Mapping) else model(batch)


def tensors(output: Any) -> list[Tensor]:
    """Return the floating-point tensors of an output."""
    return [x for x in tree_leaves(output) if isinstance(x, Tensor) and x.is_floating_point()]


def loss_of(output: Any) -> Tensor:
    """Return a loss that every output takes part in."""
    return torch.stack([(x.float() - 1).square().mean() for x in tensors(output)]).sum()


def settle(model: nn.Module, batch: Any) -> None:
    """Let BatchNorm know the statistics of the batch, as in a model that was trained."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    with torch.no_grad():
        call(model.train(), batch)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def names_in(name: str, module: nn.Module) -> set[str]:
    """Return the names of the layers that run with a module."""
    attention = isinstance(module, nn.MultiheadAttention)
    return {name} | {f"{name}.{part}" for part in PROJECTIONS if attention}


def layers_that_run(model: nn.Module, batch: Any) -> set[str]:
    """Return the modules that a forward pass calls, and the projections of attentions."""
    ran: set[str] = set()
    handles = [
        m.register_forward_hook(lambda m, *_, name=name: ran.update(names_in(name, m)))
        for name, m in model.named_modules()
    ]
    with torch.no_grad():
        call(model, batch)
    for handle in handles:
        handle.remove()
    return ran


def witnessed(model: nn.Module, student: nn.Module, batch: Any) -> Any:
    """Call the student, require the layers that run in ``model`` to run quantized in it."""
    wanted = layers_that_run(model, batch) & set(quantized_layers(student))
    with Witness(student) as witness:
        output = call(student, batch)
    witness.check(wanted)
    return output


def without_gradient(model: nn.Module) -> set[str]:
    """Return the parameters that a backward pass gave nothing."""
    return {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}


def listed_whole(model: nn.Module, student: nn.Module) -> Counter[str]:
    """Require a row of ``summary`` for every weight; return the reasons of those left whole."""
    rows = daqakd.summary(student).layers
    assert {row.name for row in rows if not row.note} == set(quantized_layers(student))
    names = {row.name for row in rows}
    for name, module in model.named_modules():
        for key, weight in module._parameters.items():
            if weight is not None and weight.dim() > 1:
                layer = name.partition(".parametrizations.")[0]  # whose weight is made of these
                own = f"{name}.{key}"
                listed = {layer, own, key, own.removesuffix("_weight")}
                assert listed & names, f"{own} is not listed"
    return Counter(row.note.removeprefix("not quantized: ") for row in rows if row.note)


def check_gradients(model: nn.Module, student: nn.Module) -> None:
    """Require finite gradients of the student wherever the model gets some."""
    idle = without_gradient(student)
    own = {name for name in idle if "quantizer" in name or "output_scale" in name}
    assert idle - own == without_gradient(model)
    for name in own:
        assert f"{name.partition('.act_q')[0].partition('.weight_q')[0]}.weight" in idle, name
    for name, parameter in student.named_parameters():
        assert parameter.grad is None or parameter.grad.isfinite().all(), name


def train(model: nn.Module, student: nn.Module, batch: Any) -> float:
    """Do one step; return the loss."""
    model.train(), student.train()
    loss = loss_of(witnessed(model, student, batch))
    loss.backward()
    loss_of(call(model, batch)).backward()
    assert loss.isfinite()
    check_gradients(model, student)
    groups = daqakd.param_groups(student, lr=1e-4, weight_decay=1e-4)
    torch.optim.SGD(groups, momentum=0.9).step()
    return loss.item()


def evaluate(model: nn.Module, student: nn.Module, batch: Any) -> list[Tensor]:
    """Return the outputs in evaluation, the same in both modes without gradients."""
    model.eval(), student.eval()
    with torch.no_grad():
        wanted = tensors(witnessed(model, student, batch))
    with torch.inference_mode():
        found = tensors(call(student, batch))
    assert all(map(torch.equal, found, wanted)), "inference_mode gives something else"
    assert all(x.isfinite().all() for x in wanted)
    return wanted


def check_copies(subject: Subject, student: nn.Module, wanted: list[Tensor]) -> None:
    """Require the outputs of a deep copy, and of a student loaded from a file, to be the same."""
    file = io.BytesIO()
    torch.save(student.state_dict(), file)
    file.seek(0)
    loaded = subject.quantize(subject.build())
    loaded.load_state_dict(torch.load(file, weights_only=True))
    for other in (loaded, copy.deepcopy(student)):
        with torch.no_grad():
            found = tensors(call(other.eval(), subject.batch))
        assert all(map(torch.equal, found, wanted))


def check_fused(student: nn.Module, batch: Any) -> str:
    """Require a fused student to be the student to rounding; return how much of it is fused."""
    told = daqakd.summary(daqakd.fuse(student)).fusion
    assert told is not None
    if told.fused or told.implied:
        plain = copy.deepcopy(student).double()  # far from ties, which may fall either way
        fused, wide = daqakd.fuse(plain), tree_map(in_float64, batch)
        for training in (True, False):
            outputs = [seeded(m.train(training), wide) for m in (fused, plain)]
            for found, wanted in zip(*outputs, strict=True):
                torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-8)
        for name, value in plain.state_dict().items():
            torch.testing.assert_close(fused.state_dict()[name], value)
    return f"{len(told.fused)} of {told.norms}"


def in_float64(x: Any) -> Any:
    return x.double() if isinstance(x, Tensor) and x.is_floating_point() else x


@torch.no_grad()
def seeded(model: nn.Module, batch: Any) -> list[Tensor]:
    """Return the outputs with the same random numbers each time."""
    torch.manual_seed(0)
    return tensors(call(model, batch))


def trial(subject: Subject) -> Row:
    """Do what a user does, and check all of it."""
    model = subject.build()
    settle(model, subject.batch)
    student = daqakd.calibrate(subject.quantize(model), subject.batch)
    loss = train(model, student, subject.batch)
    check_copies(subject, student, evaluate(model, student, subject.batch))
    fused = check_fused(student, subject.batch)
    return Row(
        library=subject.library,
        name=subject.name,
        family=type(model).__module__.rpartition(".")[2].removeprefix("modeling_"),
        method=subject.method,
        quantized=len(quantized_layers(student)),
        whole=listed_whole(model, student),
        fused=fused,
        loss=loss,
    )
