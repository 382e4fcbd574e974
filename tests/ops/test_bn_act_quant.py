"""Batch norm, residual, activation and quantizer as one op, against the chain in float64."""

import itertools
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from daqakd import _ops
from daqakd.functional import bn_act_quant

from ..helpers import cases, tolerance, truth
from ..helpers.cases import Case, each_backend, each_combination, each_dtype

pytestmark = pytest.mark.usefixtures("poisoned_empty")
CHANNELS_LAST = torch.channels_last

SHAPES = {
    "images": Case("images", (5, 6, 7, 9)),
    "channels-last": Case("cl", (5, 6, 7, 9), lambda x: x.to(memory_format=CHANNELS_LAST)),
    "rows": Case("rows", (33, 17)),
    "short-runs": Case("short", (9, 5, 3, 2)),
    "one-channel": Case("one", (7, 1, 6, 6)),
    "many-channels": Case("many", (3, 300, 5)),
    "transposed": Case("transposed", (17, 33), lambda x: x.t()),
    "columns": Case("columns", (9, 8, 3), lambda x: x[:, 1:6]),
    "misaligned": Case("misaligned", (181,), lambda x: x[1:].reshape(2, 3, 30)),
}
LONG = {
    "long-runs": Case("long", (2, 3, 180, 101)),
    "long-columns": Case("tall", (1100, 40)),
    "groups": Case("groups", (70, 4, 6, 6)),
}
ACTIVATIONS = tuple(_ops.ACTIVATION_CODES)
METHODS = (None, *_ops.METHOD_CODES)
PARAMETERS: dict[str | None, tuple] = {"lsq": (0.31,), "pact": (1.3,), "ewgs": (-0.45, 1.7)}
WIDE = 16.0  # units of rounding that x, the norm and the residual together may be off


@dataclass(frozen=True)
class Chain:
    """What the op is asked for, and the same in float64 by autograd."""

    method: str | None = "lsq"
    activation: str = "relu"
    with_residual: bool = False
    training: bool = True
    bits: int = 3
    delta: float = 0.3
    grad_scale: float = 0.25

    @property
    def signed(self) -> bool:
        return self.activation == "none" and self.method in ("lsq", "pact", "dorefa")

    def inputs(self, x: Tensor) -> list[Tensor]:
        """Return x, residual or not, weight, bias and the quantizer's parameters."""
        dtype, generator = cases.parameter_dtype(x.dtype), torch.Generator().manual_seed(5)
        values = torch.rand(2, x.shape[1], generator=generator).to(dtype)
        residual = [cases.like_in_other_strides(x)] if self.with_residual else []
        given = PARAMETERS.get(self.method, ())
        parameters = [torch.tensor(value, dtype=dtype) for value in given]
        slope = 4.0 if self.activation == "relu6" else 1.0  # so that some are above 6
        return [x * 2 + 3, *residual, values[0] * slope + 0.5, values[1] - 0.3, *parameters]

    def running(self, x: Tensor) -> tuple[Tensor, ...]:
        values = torch.linspace(2.5, 3.5, x.shape[1], dtype=cases.parameter_dtype(x.dtype))
        return values, values + 1

    def split(self, inputs: list[Tensor]) -> tuple[Tensor, Tensor | None, Tensor, Tensor, list]:
        x, *rest = inputs
        residual = rest.pop(0) if self.with_residual else None
        return x, residual, rest[0], rest[1], rest[2:]

    def run(
        self, inputs: list[Tensor], running: tuple[Tensor, ...], backend: str, **options
    ) -> tuple[Tensor, ...]:
        """Return the values and the activation, and what ``options`` ask for."""
        x, residual, weight, bias, parameters = self.split(inputs)
        if self.method == "ewgs":
            options["delta"] = self.delta
        if self.method == "lsq":
            options["grad_scale"] = self.grad_scale
        return bn_act_quant(
            *(x, *running, weight, bias),
            residual=residual,
            training=self.training,
            activation=self.activation,  # type: ignore[arg-type]
            method=self.method,
            parameters=tuple(parameters),
            bits=self.bits,
            signed=self.signed,
            with_activation=True,
            backend=backend,
            **options,
        )

    def activated(self, inputs: list[Tensor], running: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Return the activation and what it is applied to, by PyTorch, which writes ``running``."""
        x, residual, weight, bias, _ = self.split(inputs)
        mean, var = running
        u = F.batch_norm(x, mean, var, weight, bias, self.training)
        u = u if residual is None else u + residual
        return {"none": lambda u: u, "relu": torch.relu, "relu6": F.relu6}[self.activation](u), u

    def quantized(self, t: Tensor, parameters: list[Tensor]) -> Tensor:
        if self.method == "lsq":
            step = parameters[0]
            scaled = truth.straight_through(step * self.grad_scale, step)
            return truth.lsq(t, scaled, bits=self.bits, signed=self.signed)
        if self.method == "pact":
            return truth.pact(t, *parameters, bits=self.bits, signed=self.signed)
        if self.method == "dorefa":
            return truth.dorefa_activation(t, bits=self.bits, signed=self.signed)
        if self.method == "ewgs":
            return truth.ewgs(t, *parameters, bits=self.bits, delta=self.delta)
        return t

    def levels(self, t: Tensor, parameters: list[Tensor]) -> tuple[Tensor, float, int, int]:
        """Return t in levels, the size of a level of the values, lowest and highest code."""
        if self.method == "lsq":
            step = float(parameters[0])
            return t / step, step, *truth.code_range(self.bits, self.signed)
        n = truth.level_count(self.bits, self.signed)
        low = -n if self.signed else 0
        if self.method == "pact":
            return t * n / float(parameters[0]), float(parameters[0]) / n, low, n
        if self.method == "ewgs":
            lower, upper = map(float, parameters)
            return (t - lower) / (upper - lower) * n, 1 / n, 0, n
        return t * n, 1 / n, low, n

    def near(self, t: Tensor, u: Tensor, inputs: list[Tensor]) -> tuple[Tensor, float]:
        """Return where rounding decides what is passed on, and the size of a level."""
        size = 1 + u.abs() + 6 * inputs[0].abs().max()
        band = WIDE * torch.finfo(torch.float32).eps * size
        close = stopped = torch.zeros_like(t, dtype=torch.bool)
        if self.activation != "none":
            close, stopped = u.abs() <= band, u < -band
        if self.activation == "relu6":
            close = close | ((u - 6).abs() <= band)
        if self.method is None:
            return close, 1.0
        v, level, low, high = self.levels(t, self.split(inputs)[4])
        per_level = (v.amax() - v.amin()) / (t.amax() - t.amin()).clamp(min=1e-9)
        at_boundary = tolerance.distance_to_boundary(v, low, high) <= band * per_level
        return close | (at_boundary & ~stopped), level  # a zero is exact


def gradients_of(outputs, inputs: list[Tensor], grads) -> list[Tensor]:
    pairs = [(y, g) for y, g in zip(outputs, grads, strict=True) if y.requires_grad]
    return list(torch.autograd.grad([y for y, _ in pairs], inputs, [g for _, g in pairs]))


def check(chain: Chain, case: Case, dtype: torch.dtype, backend: str) -> None:
    """Compare values, statistics and gradients, these where no rounding decides."""
    cases.require("bn_act_quant", backend, dtype)
    inputs = [x.detach().requires_grad_() for x in chain.inputs(case.make(dtype))]
    running, wide = chain.running(inputs[0]), [x.detach().double() for x in inputs]
    wide = [x.requires_grad_() for x in wide]
    wide_running = tuple(r.double().clone() for r in running)
    t, u = chain.activated(wide, wide_running)
    exact = chain.quantized(t, chain.split(wide)[4])
    near, level = chain.near(t.detach(), u.detach(), [x.detach() for x in wide])
    y, activation = chain.run(inputs, running, backend)
    floor = tolerance.VALUE_FLOORS[dtype]
    size = float(6 + inputs[0].detach().abs().max()) if dtype == torch.float32 else 1.0
    tolerance.check_close(activation, t, floor=floor * size)
    if chain.method is not None:
        tolerance.check_quantized(y, exact.detach(), near, level, most=1.0)
    for result, wanted in zip(running, wide_running, strict=True):
        tolerance.check_close(result, wanted)
    grads = [torch.where(near, 0.0, cases.like_in_other_strides(y.detach())) for _ in range(2)]
    grads = [g.to(dtype) for g in grads]
    ours = (y,) if chain.method is None else (y, activation)
    theirs = (exact,) if chain.method is None else (exact, t)
    found = gradients_of(ours, inputs, grads[: len(ours)])
    exact_gradients = gradients_of(theirs, wide, [g.double() for g in grads[: len(ours)]])
    for gradient, truth_of, given in zip(found, exact_gradients, inputs, strict=True):
        assert gradient.dtype == given.dtype
        floor = 8 * tolerance.VALUE_FLOORS[gradient.dtype]
        unit = max(1.0, (y.numel() / gradient.numel()) ** 0.5)  # of a sum of terms of either sign
        tolerance.check_close(gradient, truth_of, floor=floor, unit=unit)
    tolerance.check_layout(y, inputs[0])
    tolerance.check_layout(activation, inputs[0])
    tolerance.check_layout(found[0], inputs[0])


def assorted(shapes: dict[str, Case]) -> dict[str, tuple[Case, Chain]]:
    """Return every shape with every method; the activation and the residual take turns."""
    found = {}
    for (i, (name, case)), (k, method) in itertools.product(
        enumerate(shapes.items()), enumerate(METHODS)
    ):
        activation, residual = ACTIVATIONS[(i + k) % 3], (i + k // 2) % 2 == 0
        found[f"{name}-{method}-{activation}"] = case, Chain(method, activation, residual)
    return found


@each_combination(chained=assorted(SHAPES))
def test_every_layout(chained, dtype, backend):
    check(chained[1], chained[0], dtype, backend)


@each_combination(chained=assorted(LONG))
def test_long_runs_and_many_tiles(chained, dtype, backend):
    check(chained[1], chained[0], dtype, backend)


@each_combination(
    chain={
        f"{method}-{'residual' if residual else 'plain'}": Chain(
            method, with_residual=residual, training=False
        )
        for method, residual in itertools.product(METHODS, (False, True))
    }
)
def test_running_statistics(chain, dtype, backend):
    check(chain, SHAPES["images"], dtype, backend)


@each_combination(
    chain={
        f"{method}-{bits}": Chain(method, "relu" if bits == 1 else "none", bits=bits)
        for method, bits in itertools.product(("lsq", "pact", "dorefa", "ewgs"), (1, 2, 8))
    }
)
def test_every_width(chain, dtype, backend):
    check(chain, SHAPES["rows"], dtype, backend)


@each_backend
def test_the_quantizer_is_the_ops_own(backend):
    """Values are those of the quantizer's own op on the activation, bit for bit."""
    from daqakd import functional

    cases.require("bn_act_quant", backend)
    x = SHAPES["images"].make(torch.float32)
    step, alpha, upper = torch.tensor(0.3), torch.tensor(1.2), torch.tensor(1.5)
    for method, parameters, apply in (
        ("lsq", (step,), lambda t: functional.lsq(t, step, bits=4, signed=False)),
        ("pact", (alpha,), lambda t: functional.pact(t, alpha, bits=4)),
        ("dorefa", (), lambda t: functional.dorefa_activation(t, bits=4)),
        ("ewgs", (-step, upper), lambda t: functional.ewgs(t, -step, upper, bits=4)),
    ):
        y, t = bn_act_quant(
            *(x, None, None), method=method, parameters=parameters, bits=4,
            with_activation=True, backend=backend,
        )  # fmt: skip
        assert torch.equal(y, apply(t))


@each_backend
@each_dtype
def test_only_what_is_read_gets_a_gradient(dtype, backend):
    """The activation alone, the values alone: the other gradient counts as zero."""
    cases.require("bn_act_quant", backend, dtype)
    chain = Chain(with_residual=True)
    inputs = [x.requires_grad_() for x in chain.inputs(SHAPES["images"].make(dtype))]
    outputs = chain.run(inputs, chain.running(inputs[0]), backend)
    g = torch.ones_like(inputs[0])
    for place in range(2):
        zeros = [torch.zeros_like(g), torch.zeros_like(g)]
        zeros[place] = g
        alone = torch.autograd.grad(outputs[place], inputs, g, retain_graph=True, allow_unused=True)
        both = torch.autograd.grad(outputs, inputs, zeros, retain_graph=True)
        for a, b in zip(alone, both, strict=True):
            assert torch.equal(torch.zeros_like(b) if a is None else a, b)


@each_backend
def test_not_a_number_stays_in_its_channel(backend):
    cases.require("bn_act_quant", backend)
    x = torch.randn(4, 3, 5, 5)
    x[1, 1, 2, 2] = float("nan")
    x[0, 2, 0, 0] = float("inf")
    y = bn_act_quant(x, method="lsq", parameters=(torch.tensor(0.3),), backend=backend)
    finite = bn_act_quant(x[:, :1], method="lsq", parameters=(torch.tensor(0.3),), backend=backend)
    assert torch.equal(y[:, :1], finite)
    assert y[:, 1:].isnan().all()


@each_backend
def test_an_empty_batch_changes_nothing(backend):
    cases.require("bn_act_quant", backend)
    x = torch.zeros(0, 3, 4, 4, requires_grad=True)
    mean, var, weight = torch.ones(3), torch.ones(3), torch.ones(3, requires_grad=True)
    step = torch.tensor(0.3, requires_grad=True)
    y = bn_act_quant(x, mean, var, weight, method="lsq", parameters=(step,), backend=backend)
    y.sum().backward()
    assert y.shape == x.shape
    assert torch.equal(mean, torch.ones(3))
    assert torch.equal(var, torch.ones(3))
    assert torch.equal(weight.grad, torch.zeros(3))
    assert step.grad == 0


@each_backend
@each_dtype
def test_far_from_zero_the_variance_keeps_its_digits(dtype, backend):
    """A mean of 1,000 deviations: the mean of squares less the square of the mean has none left."""
    cases.require("bn_act_quant", backend, dtype)
    x = SHAPES["images"].make(torch.float64) * 0.5 + 1000
    x = x.to(dtype)
    running = [torch.zeros(6, dtype=cases.parameter_dtype(dtype)) for _ in range(2)]
    bn_act_quant(x, *running, momentum=1.0, backend=backend)
    others = (0, 2, 3)
    tolerance.check_close(running[0], x.double().mean(others), floor=1e-7, unit=1e-9)
    tolerance.check_close(running[1], x.double().var(others), floor=1e-5, unit=1e-9)


@each_backend
def test_momentum_may_be_a_tensor(backend):
    cases.require("bn_act_quant", backend)
    x = SHAPES["images"].make(torch.float32)
    found = []
    for momentum in (0.25, torch.tensor(0.25)):
        running = torch.zeros(6), torch.ones(6)
        bn_act_quant(x, *running, momentum=momentum, backend=backend)
        found.append(running)
    assert all(map(torch.equal, *found))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_bits(threads):
    cases.require("bn_act_quant", "native")
    chain, before = Chain("ewgs", with_residual=True), torch.get_num_threads()
    for case in (*SHAPES.values(), *LONG.values()):
        inputs = [x.requires_grad_() for x in chain.inputs(case.make(torch.float32))]
        results = []
        for count in (threads, 7):
            torch.set_num_threads(count)
            running = chain.running(inputs[0])
            outputs = chain.run(inputs, running, "native")
            grads = torch.autograd.grad(outputs, inputs, [x.detach() for x in outputs])
            results.append((*outputs, *running, *grads))
        torch.set_num_threads(before)
        assert all(map(torch.equal, *results))


@each_backend
def test_gradients_of_the_smooth_part(backend):
    """Without a quantizer and an activation the op is smooth: finite differences."""
    cases.require("bn_act_quant", backend, torch.float64)
    chain = Chain(None, "none", with_residual=True)
    inputs = [x.requires_grad_() for x in chain.inputs(torch.randn(4, 3, 5).double())]

    def function(*inputs):
        return chain.run(list(inputs), chain.running(inputs[0]), backend)[0]

    assert torch.autograd.gradcheck(function, inputs)


def test_it_keeps_the_input_and_two_numbers_a_channel():
    x = torch.randn(8, 4, 16, 16, requires_grad=True)
    step = torch.tensor(0.3, requires_grad=True)
    kept = cases.saved_bytes(lambda: bn_act_quant(x, method="lsq", parameters=(step,), bits=4))
    assert kept <= 4 * x.numel() + 2 * 4 * 4 + 4
