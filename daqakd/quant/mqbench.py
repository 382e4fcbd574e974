"""``flavour="mqbench"``: the quantizers of the published Tiny ImageNet runs of [DAQAKD] and SQAKD.

Those used MQBench's 'Academic' fake quantizers, which differ from the papers they are named after:

- One grid for weights and activations, codes in [-2^(b-1), 2^(b-1) - 1] with one step a tensor:
  after a ReLU, 2^(b-1) levels are left.
- Gradients pass where the rounded code is in range, as those of PyTorch's affine fake quantization.
- Quantizer parameters train like weights; see :func:`~daqakd.quant.param_groups`.

Two things stay as in this package: each layer quantizes its own input, where MQBench quantizes a
tensor for all its readers, a residual sum among them; and ``calibrate`` gives later layers
quantized inputs. PyTorch's fake quantization, so DoReFa and PACT here, gives NaN the lowest level.
"""

import math

import torch
from torch import Tensor, nn

from .. import functional as F
from .._ops import SMALLEST
from ..functional import _checks
from .activations import LSQActivation, PACTActivation
from .affine import ActivationAffine, WeightAffine
from .base import ActivationQuantizer, Statistics
from .spec import LayerSpec
from .weights import DoReFaWeight, LSQWeight, WeightQuantizer

EPSILON = 1e-5  # beside the maximum of DoReFa
ALPHA = 6.0  # where PACT starts

Ends = tuple[Tensor, Tensor]


def _half_range(bits: int) -> float:
    """Return how many steps the largest magnitude is from 0: half of one beyond the top code."""
    return (float(2**bits) - 1) / 2


def _ends(step: Tensor, bits: int) -> Ends:
    """Return the lowest and the highest level."""
    qmin, qmax = _checks.integer_range(bits, True)
    return qmin * step, qmax * step


def _positive(step: Tensor) -> Tensor:
    """Return the magnitude; unlike that of ``abs``, its gradient at 0 is not 0."""
    return torch.where(step < 0, -step, step)


def _lsq(x: Tensor, step: Tensor, bits: int, scale: float) -> Tensor:
    by = _positive(step)
    return F.lsq(x, by, bits=bits, signed=True, ste="rounded", grad_scale=scale)


def _as_wide(x: Tensor) -> Tensor:
    """Return 16-bit values as float32."""
    return x if x.dtype in (torch.float32, torch.float64) else x.float()


def _on_grid(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """Fake-quantize by a fixed step ``[1]``, on its device."""
    zero = torch.zeros(1, dtype=torch.int32, device=x.device)
    codes = _checks.integer_range(bits, True)
    return torch.fake_quantize_per_tensor_affine(_as_wide(x), step.detach().float(), zero, *codes)


def _normalised(x: Tensor) -> Tensor:
    """Return ``tanh(x) / (max|tanh(x)| + 1e-5)``, the maximum in the graph, shared by ties."""
    t = _as_wide(x).tanh()
    return t / (t.abs().max() + EPSILON) if t.numel() else t


def _dorefa(x: Tensor, step: Tensor, bits: int) -> Tensor:
    _checks.floating("x", x)
    return _on_grid(_normalised(x), step, bits).to(x.dtype)


class MQBenchLSQWeight(LSQWeight):
    """LSQ on weights as MQBench has it: the step is used by its magnitude."""

    method = "mqbench-lsq"
    flavour = "mqbench"
    has_fused_op = False

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(weight, bits, per_channel=False)

    def step_size(self) -> float:
        """Return the step's magnitude."""
        return abs(super().step_size())

    def apply_op(self, w: Tensor) -> Tensor:
        """Fake-quantize."""
        return _lsq(w, self.step, self.bits, self.grad_scale)

    def steps(self, dim: int) -> Tensor:
        """Return the step's magnitude."""
        return self.step.detach().abs().clamp(min=SMALLEST)


class MQBenchDoReFaWeight(DoReFaWeight):
    """DoReFa on weights as MQBench has it: on the signed grid, by the step of the first weights."""

    method = "mqbench-dorefa"
    flavour = "mqbench"
    has_fused_op = False

    def __init__(self, weight: Tensor, bits: int) -> None:
        super().__init__(weight, bits, rescale=False)
        self.register_buffer("step", self.starting_values(weight)["step"])
        self.step: Tensor

    def starting_values(self, weight: Tensor) -> dict[str, Tensor]:
        """Return the step, from the largest normalised weight."""
        values = _normalised(weight.detach()).float().abs()
        largest = values.max() if values.numel() else values.new_ones(())
        return {"step": largest.reshape(1) / _half_range(self.bits)}

    def step_size(self) -> float:
        """Return the step."""
        return self.step.item()

    def apply_op(self, w: Tensor) -> Tensor:
        """Normalise and fake-quantize."""
        return _dorefa(w, self.step, self.bits)

    def codes(self, w: Tensor) -> Tensor:
        """Return the codes above the lowest one."""
        codes: Tensor = torch.round(self(w) / self.step) + 2 ** (self.bits - 1)
        return codes.to(torch.uint8)

    def magnitude(self, w: Tensor) -> Tensor | None:
        """Return None: the step is a buffer."""
        return None

    def from_codes(self, codes: Tensor, magnitude: Tensor | None = None) -> Tensor:
        """Return code times step."""
        above_lowest: Tensor = codes.float() - float(2 ** (self.bits - 1))
        return above_lowest * self.step

    def affine(self, w: Tensor) -> WeightAffine:
        """Return the step, and the code of 0."""
        return WeightAffine(self.step.float(), 2 ** (self.bits - 1))


class MQBenchLSQActivation(LSQActivation):
    """LSQ on activations as MQBench has it: signed, and the gradient scale counts the batch."""

    method = "mqbench-lsq"
    flavour = "mqbench"
    has_fused_op = False
    always_signed = True

    @property
    def qmax(self) -> int:
        """The largest code."""
        return int(2 ** (self.bits - 1)) - 1

    def step_size(self) -> float | None:
        """Return the step's magnitude."""
        step = super().step_size()
        return None if step is None else abs(step)

    def ends(self, x: Tensor) -> Ends:
        """Return the lowest and the highest activation that is not clipped."""
        return _ends(self.step.detach().abs().clamp(min=SMALLEST), self.bits)

    def quantize(self, x: Tensor) -> Tensor:
        """Apply LSQ."""
        scale = 1 / math.sqrt(max(x.numel(), 1) * self.qmax)
        return _lsq(x, self.step, self.bits, scale)

    def affine(self) -> ActivationAffine:
        """Return the step's magnitude, on both sides."""
        step = self.step.detach().abs().clamp(min=SMALLEST)
        return ActivationAffine(step, step, *_checks.integer_range(self.bits, True))


class MQBenchPACTActivation(PACTActivation):
    """PACT as MQBench trains it: a fixed grid with the step ``2 alpha / (2^b - 1)``.

    Alpha clips in MQBench's first batch alone, so it gets no gradient, and weight decay, which SGD
    does not apply without one, leaves it where it started: at 6, or ``pact_alpha``.
    """

    method = "mqbench-pact"
    flavour = "mqbench"
    has_fused_op = False
    always_signed = True
    measures: tuple[str, ...] = ()

    def __init__(self, bits: int, start: float | None) -> None:
        super().__init__(bits, ALPHA if start is None else start)
        self.alpha = nn.Parameter(torch.full((1,), ALPHA), requires_grad=False)

    def _step(self) -> Tensor:
        return self.alpha.detach().clamp(min=SMALLEST) / _half_range(self.bits)

    def step_size(self) -> float | None:
        """Return the step."""
        return self._step().item() if self.is_calibrated else None

    def ends(self, x: Tensor) -> Ends:
        """Return the lowest and the highest activation that is not clipped."""
        return _ends(self._step(), self.bits)

    def quantize(self, x: Tensor) -> Tensor:
        """Fake-quantize."""
        _checks.floating("x", x)
        return _on_grid(x, self._step(), self.bits).to(x.dtype)

    def affine(self) -> ActivationAffine:
        """Return the step, on both sides."""
        return ActivationAffine(self._step(), self._step(), *_checks.integer_range(self.bits, True))


class MQBenchDoReFaActivation(ActivationQuantizer):
    """DoReFa on activations as MQBench has it: normalised like weights, by the batch's maximum.

    That maximum is the current batch's in evaluation, too: **what is predicted for an image depends
    on the images beside it**. The step stays that of the calibration data.
    """

    method = "mqbench-dorefa"
    flavour = "mqbench"
    has_fused_op = False
    always_signed = True
    measures = ("largest_tanh",)

    def __init__(self, bits: int) -> None:
        super().__init__(bits)
        self.register_buffer("step", torch.full((1,), 1 / _half_range(bits)))
        self.step: Tensor

    def step_size(self) -> float | None:
        """Return the step between normalised activations."""
        return self.step.item() if self.is_calibrated else None

    def initialise(self, statistics: Statistics) -> None:
        """Start the step from the largest normalised magnitude."""
        largest = statistics.mean("largest_tanh")
        self.step.copy_(largest / (largest + EPSILON) / _half_range(self.bits))

    def ends(self, x: Tensor) -> Ends:
        """Return the lowest and the highest of these activations that is not clipped."""
        largest = _as_wide(x).tanh().abs().max() + EPSILON
        low, high = _ends(self.step, self.bits)
        return (low * largest).clamp(-1, 1).atanh(), (high * largest).clamp(-1, 1).atanh()

    def quantize(self, x: Tensor) -> Tensor:
        """Normalise and fake-quantize."""
        return _dorefa(x, self.step, self.bits)


MQBenchActivation = MQBenchLSQActivation | MQBenchPACTActivation | MQBenchDoReFaActivation


def weight_quantizer(spec: LayerSpec, weight: Tensor, bits: int) -> WeightQuantizer:
    """Return what quantizes weights by the spec."""
    kind = MQBenchLSQWeight if spec.weights_by == "lsq" else MQBenchDoReFaWeight
    return kind(weight, bits)


def act_quantizer(spec: LayerSpec, bits: int) -> ActivationQuantizer:
    """Return what quantizes activations by the spec."""
    if spec.activations_by == "pact":
        return MQBenchPACTActivation(bits, spec.pact_alpha)
    return (MQBenchLSQActivation if spec.activations_by == "lsq" else MQBenchDoReFaActivation)(bits)
