"""What the ops must give, in float64, differentiated by autograd through surrogates.

A surrogate is the smooth expression the straight-through estimator pretends to see, plus a detached
residual that gives it the quantized value. Case distinctions are explicit ``where`` masks.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

SMALLEST = 2.0**-30


def with_gradients(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], g: Tensor, **options
) -> tuple[Tensor, ...]:
    """Return the value of ``function`` and the gradients of its inputs, which it must not write."""
    before = [x.detach().clone() for x in (*inputs, g)]
    leaves = [x.detach().requires_grad_() for x in inputs]
    y = function(*leaves, **options)
    gradients = torch.autograd.grad(y, leaves, g)
    for x, kept in zip((*leaves, g), before, strict=True):
        torch.testing.assert_close(x.detach(), kept, rtol=0, atol=0, equal_nan=True)
    return y.detach(), *gradients


def in_double(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [x.double() for x in tensors]


def half_even(v: Tensor) -> Tensor:
    """Round to the nearest integer, ties to the even one, without ``torch.round``."""
    below = torch.floor(v)
    rest = v - below
    odd = torch.remainder(below, 2)
    return below + torch.where(rest == 0.5, odd, (rest > 0.5).double())


def straight_through(smooth: Tensor, value: Tensor) -> Tensor:
    """Give the gradient of ``smooth`` the ``value`` of another tensor."""
    return smooth + (value - smooth).detach()


def at_least(parameter: Tensor, smallest: float) -> Tensor:
    """Keep a parameter away from zero, with its gradient taken there."""
    raised = torch.where(parameter > smallest, parameter, torch.full_like(parameter, smallest))
    return straight_through(parameter, raised)


def along(parameter: Tensor, x: Tensor, axis: int | None) -> Tensor:
    """Line a parameter up with the axis of ``x`` that it belongs to."""
    if axis is None:
        return parameter.reshape([1] * x.dim())
    return parameter.reshape([n if d == axis % x.dim() else 1 for d, n in enumerate(x.shape)])


def code_range(bits: int, signed: bool) -> tuple[int, int]:
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def level_count(bits: int, signed: bool) -> int:
    """Return the largest code of the forms that are symmetric when signed."""
    return 2 ** (bits - 1) - 1 if signed else 2**bits - 1


def lsq(
    x: Tensor,
    step: Tensor,
    *,
    bits: int,
    signed: bool,
    axis: int | None = None,
    ste: str = "closed",
    decide: torch.dtype = torch.float64,
) -> Tensor:
    """[LSQ] eq. 1 to 3; ``decide`` is the dtype in which codes and masks are decided."""
    low, high = code_range(bits, signed)
    s = along(at_least(step, SMALLEST), x, axis)
    v = (x.detach().to(decide) / s.detach().to(decide)).double()
    code = half_even(v.clamp(low, high))
    inside = {
        "closed": (low <= v) & (v <= high),
        "open": (low < v) & (v < high),
        "rounded": (low <= half_even(v)) & (half_even(v) <= high),
    }[ste]
    residual = torch.where(inside, code - v, 0.0)
    return torch.where(inside, x + s * residual, s * code)


def lsqplus(
    x: Tensor,
    step: Tensor,
    offset: Tensor,
    *,
    bits: int,
    decide: torch.dtype = torch.float64,
) -> Tensor:
    """[LSQ+] eq. 1 to 5; ``decide`` is the dtype in which codes and masks are decided."""
    s, highest = at_least(step, SMALLEST), 2**bits - 1
    above = x.detach().to(decide) - offset.detach().to(decide)
    v = (above / s.detach().to(decide)).double()
    code = half_even(v.clamp(0, highest))
    inside = (v >= 0) & (v <= highest)
    residual = torch.where(inside, code - v, 0.0)
    return torch.where(inside, x + s * residual, s * code + offset)


def seq(
    x: Tensor,
    step: Tensor,
    *,
    levels: int,
    axis: int | None = None,
    decide: torch.dtype = torch.float64,
) -> Tensor:
    """[ParetoQ]'s SEQ; ``decide`` is the dtype in which levels and masks are decided."""
    s, end = along(at_least(step, SMALLEST), x, axis), (levels - 1) / 2
    v = (x.detach().to(decide) / s.detach().to(decide)).double()
    above = torch.where(v < end, v, end)
    clipped = torch.where(above > -end, above, -end)
    level = half_even(clipped) if levels % 2 else torch.floor(clipped) + 0.5
    inside = (-levels / 2 < v) & (v < levels / 2)
    residual = torch.where(inside, level - v, 0.0)
    return torch.where(inside, x + s * residual, s * level)


def pact(
    x: Tensor, alpha: Tensor, *, bits: int, signed: bool = False, axis: int | None = None
) -> Tensor:
    """[PACT] eq. 1 to 3: at x = alpha the gradient belongs to alpha."""
    a = along(at_least(alpha, SMALLEST), x, axis).expand_as(x)
    n = level_count(bits, signed)
    floor = -a if signed else torch.zeros_like(a)
    code = half_even(torch.minimum(torch.maximum(x, floor), a).detach() * n / a.detach())
    inner = straight_through(x, code * a / n)
    return torch.where(x >= a, a, torch.where(x <= floor, floor, inner))


def dorefa_activation(x: Tensor, *, bits: int, signed: bool = False) -> Tensor:
    """[DoReFa] eq. 11, ends included in the straight-through range."""
    low, n = -1.0 if signed else 0.0, level_count(bits, signed)
    value = half_even(x.detach().clamp(low, 1.0) * n) / n
    return torch.where((low <= x) & (x <= 1), straight_through(x, value), value)


def dorefa_weight(w: Tensor, *, bits: int, detach_max: bool = True) -> Tensor:
    """[DoReFa] eq. 9, and at 1 bit the scaled sign."""
    if bits == 1:
        size = w.abs().mean()
        sign = torch.where(w.detach() < 0, -1.0, 1.0).double()
        return straight_through(w, torch.zeros_like(w)) + sign * (
            size.detach() if detach_max else size
        )
    t, n = torch.tanh(w), 2**bits - 1
    largest = t.abs().amax()  # ties share the gradient of amax equally
    largest = largest.detach() if detach_max else largest
    unit = t / (2 * largest) + 0.5 if float(largest.detach()) > 0 else 0 * w + 0.5
    return 2 * straight_through(unit, half_even(unit.detach() * n) / n) - 1


def ewgs(x: Tensor, lower: Tensor, upper: Tensor, *, bits: int, delta: float = 0.0) -> Tensor:
    """[EWGS] eq. 1 to 7: the gradient that reaches the rounding is scaled by its error."""
    n = 2**bits - 1
    unit = (x - lower) / at_least(upper - lower, SMALLEST)
    unit = torch.where(unit < 0, 0.0, torch.where(unit > 1, 1.0, unit))
    value = half_even(unit.detach() * n) / n
    error = unit.detach() - value
    rounded = straight_through(unit, value)
    if rounded.requires_grad:
        rounded = ScaledGradient.apply(rounded, error, delta)
    return rounded


class ScaledGradient(torch.autograd.Function):
    """Identity whose gradient is ``g * (1 + delta * sign(g) * error)``."""

    @staticmethod
    def forward(ctx, x: Tensor, error: Tensor, delta: float) -> Tensor:
        ctx.save_for_backward(error)
        ctx.delta = delta
        return x.clone()

    @staticmethod
    def backward(ctx, g: Tensor):
        (error,) = ctx.saved_tensors
        return g * (1 + ctx.delta * torch.sign(g) * error), None, None


def kd_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None,
    *,
    temperature: float = 4.0,
    ce_weight: float = 1.0,
    kd_weight: float = 2.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
) -> tuple[Tensor, Tensor]:
    """Return the weighted CE and KL terms per row, by PyTorch's own losses."""
    log_p = F.log_softmax(student / temperature, 1)
    log_t = F.log_softmax(teacher / temperature, 1)
    kl = F.kl_div(log_p, log_t, reduction="none", log_target=True).sum(1)
    ce = torch.zeros_like(kl)
    if labels is not None:
        ce = F.cross_entropy(
            student,
            labels,
            reduction="none",
            ignore_index=ignore_index,
            label_smoothing=label_smoothing,
        )
    return ce_weight * ce, kd_weight * temperature**2 * kl


def reduce_loss(ce: Tensor, kl: Tensor, counted: int, reduction: str) -> Tensor:
    """Reduce the two terms: mean is CE over the ``counted`` rows plus KL over all rows."""
    if reduction == "mean":
        return ce.sum() / max(counted, 1) + kl.mean()
    return (ce + kl).sum() if reduction == "sum" else ce + kl
