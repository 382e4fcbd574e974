"""Distillation loss: cross-entropy plus temperature-scaled KL (Hinton et al., 2015)."""

from typing import Any

import torch
from torch import Tensor

from .._errors import InputError
from .._kd import KDSettings
from .._ops import REDUCTION_CODES
from ..backends import choose
from ..backends.contract.rows import TEMPERATURES
from . import _checks
from ._apply import first_order, implementation, split_scalar

NO_GRADIENTS = (None,) * (3 + len(KDSettings._fields))  # of teacher, labels, backend, settings


class KDLossFunction(torch.autograd.Function):
    """The gradient is made in the forward pass and scaled in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None,
        backend: str,
        *settings: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the loss, the reduced CE and KL, and the rows' CE and KL."""
        run = implementation("kd_loss_forward", backend)
        needs_grad = ctx.needs_input_grad[0]
        loss, reduced, ce, kl, grad = run(student, teacher, labels, *settings, needs_grad)
        ctx.save_for_backward(grad)
        ctx.mean = KDSettings(*settings).reduction == REDUCTION_CODES["mean"]
        ctx.mark_non_differentiable(reduced, ce, kl)
        ctx.set_materialize_grads(False)  # no zeros for CE and KL
        return loss, reduced, ce, kl

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the student's logits."""
        if grads[0] is None:
            return None, *NO_GRADIENTS
        (grad,) = ctx.saved_tensors
        scale = grads[0] * (1.0 / max(grad.shape[0], 1)) if ctx.mean else grads[0]
        scaled = grad * (scale[:, None] if scale.dim() else scale)
        return scaled if scaled.dtype == grad.dtype else scaled.to(grad.dtype), *NO_GRADIENTS


class RecomputedKDLossFunction(torch.autograd.Function):
    """Nothing but the inputs is kept: the backward pass makes the gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None,
        backend: str,
        *settings: Any,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the loss, the reduced CE and KL, and the rows' CE and KL."""
        run = implementation("kd_loss_forward", backend)
        loss, reduced, ce, kl, _ = run(student, teacher, labels, *settings, False)
        named = KDSettings(*settings)
        ctx.save_for_backward(student, teacher, labels, *named.tensors)
        ctx.settings, ctx.backend = named.replaced(None, None, None), backend
        ctx.mark_non_differentiable(reduced, ce, kl)
        ctx.set_materialize_grads(False)  # no zeros for CE and KL
        return loss, reduced, ce, kl

    @staticmethod
    @first_order
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradient of the student's logits."""
        if grads[0] is None:
            return None, *NO_GRADIENTS
        student, teacher, labels, *tensors = ctx.saved_tensors
        run = implementation("kd_loss_backward", ctx.backend)
        grad = run(grads[0], student, teacher, labels, *ctx.settings.replaced(*tensors))
        return grad, *NO_GRADIENTS


def _check_options(
    temperature: float | Tensor, smoothing: float, ignore_index: int, reduction: str
) -> None:
    if not 0.0 <= _checks.real("label_smoothing", smoothing) < 1.0:
        raise InputError(f"label_smoothing: expected 0 <= e < 1, got {smoothing}")
    if not isinstance(reduction, str) or reduction not in REDUCTION_CODES:
        raise InputError(
            f"reduction: expected one of {', '.join(REDUCTION_CODES)}, got {reduction!r}"
        )
    low, high = TEMPERATURES
    if isinstance(temperature, float | int) and not low <= temperature <= high:
        raise InputError(
            f"temperature: expected more than 0, from 2^-60 to 2^60, got {temperature}"
        )
    _checks.integer("ignore_index", ignore_index, -(2**63))


def _check_tensors(student: Tensor, teacher: Tensor, labels: Tensor | None) -> None:
    _checks.tensor("student_logits", student)
    for name, x in (("student_logits", student), ("teacher_logits", teacher)):
        _checks.floating(name, x)
        _checks.same_device(name, x, student, "student_logits")
        if x.dim() != 2 or x.shape != student.shape or x.shape[1] == 0:
            raise InputError(
                f"{name}: expected [B, C], C >= 1, like student_logits {tuple(student.shape)},"
                f" got {tuple(x.shape)}"
            )
    if teacher.requires_grad:
        raise InputError(
            "teacher_logits: requires a gradient, but none is given to the teacher;"
            " run it under torch.no_grad() or pass teacher_logits.detach()"
        )
    if labels is not None:
        _checks.labels(labels, student)


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float | Tensor = 4.0,
    ce_weight: float | Tensor = 1.0,
    kd_weight: float | Tensor = 2.0,
    label_smoothing: float = 0.0,
    ignore_index: int = -100,
    reduction: str = "mean",
    return_parts: bool = False,
    recompute: bool = False,
    backend: str | None = None,
) -> Any:
    """Distillation loss ``a * CE(z, y) + b * T^2 * KL(softmax(t/T) || softmax(z/T))`` [KD].

    Args:
        student_logits: ``z [B, C]``, floating point; the only input that gets a gradient.
        teacher_logits: ``t [B, C]``, without ``requires_grad``.
        labels: int64 ``[B]``, probabilities ``[B, C]``, or None to drop the cross-entropy.
        temperature: T, float or 0-dim tensor.
        ce_weight: a, float or 0-dim tensor.
        kd_weight: b, float or 0-dim tensor; T^2 is not in it.
        label_smoothing: mass spread evenly over the classes.
        ignore_index: integer labels with this value have no cross-entropy.
        reduction: ``"mean"`` (CE over the rows not ignored, KL over all rows), ``"sum"``,
            ``"none"`` (one loss per row).
        return_parts: also return the unweighted CE and KL, reduced the same way, for logging.
        recompute: make the gradient in the backward pass from the logits instead of keeping it:
            ``B * C`` numbers less between the passes, two more reads. A float32 or float64
            gradient has the same bits, a 16-bit one is rounded once instead of twice.
        backend: ``"reference"``, ``"triton"``, ``"native"`` or None for the automatic choice.

    Returns:
        The loss in nats, float32 (float64 for float64 logits); with ``return_parts`` the tuple
        (loss, CE, KL), where CE and KL carry no gradient.

    Raises:
        InputError: a wrong shape, dtype, device, smoothing, reduction or backend, or a teacher
            that requires a gradient.
        RuntimeError: an integer label that is neither a class nor ``ignore_index``, on a CPU; on a
            GPU, which cannot raise without waiting, the row's CE is NaN.

    >>> z = torch.tensor([[2.0, 0.0]])
    >>> kd_loss(z, z, torch.tensor([0]))
    tensor(0.1269)
    """
    _check_tensors(student_logits, teacher_logits, labels)
    _check_options(temperature, label_smoothing, ignore_index, reduction)
    _checks.flag("return_parts", return_parts)
    _checks.flag("recompute", recompute)
    x = student_logits
    values = {"temperature": temperature, "ce_weight": ce_weight, "kd_weight": kd_weight}
    settings = KDSettings(
        **_split(values, x),
        label_smoothing=label_smoothing,
        ignore_index=ignore_index,
        reduction=REDUCTION_CODES[reduction],
    )
    function = RecomputedKDLossFunction if recompute else KDLossFunction
    chosen = choose("kd_loss", x, backend)
    loss, reduced, ce, kl = function.apply(x, teacher_logits, labels, chosen, *settings)
    if not return_parts:
        return loss
    return (loss, ce, kl) if reduction == "none" else (loss, *reduced.unbind())


def _split(values: dict[str, float | Tensor], x: Tensor) -> dict[str, Any]:
    """Return each value's number and, as ``<name>_tensor``, its tensor or None."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        number, tensor = split_scalar(value, name)
        if tensor is not None and tensor.device != x.device:
            raise InputError(
                f"{name}: is on {tensor.device}, but student_logits is on {x.device}; move it,"
                " or pass a float"
            )
        found |= {name: number, f"{name}_tensor": tensor}
    return found
