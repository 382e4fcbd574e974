"""When a result is right: no worse than PyTorch's own in that dtype, against a float64 truth."""

import torch
from torch import Tensor

VALUE_FLOORS = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.bfloat16: 2.0**-8,
    torch.float16: 2.0**-11,
}
MOST_FLIPS = 0.005  # of all elements


def error(result: Tensor, truth: Tensor, unit: float = 1.0) -> float:
    """Return the largest error relative to ``max(unit, max|truth|)``.

    NaN, or an infinity, anywhere but where the truth has it too counts as infinitely wrong.
    """
    assert result.shape == truth.shape, f"shape {tuple(result.shape)}, want {tuple(truth.shape)}"
    if truth.numel() == 0:
        return 0.0
    result, truth = result.detach().double(), truth.detach().double()
    special = ~torch.isfinite(truth)
    if special.any() and not torch.equal(
        torch.nan_to_num(result[special], 1.5), torch.nan_to_num(truth[special], 1.5)
    ):
        return float("inf")
    difference, finite = (result - truth)[~special].abs(), truth[~special].abs()
    if difference.numel() == 0:
        return 0.0
    if not torch.isfinite(difference).all():
        return float("inf")
    return float(difference.max() / finite.max().clamp(min=unit))


def check_close(
    result: Tensor,
    truth: Tensor,
    *,
    eager: Tensor | None = None,
    floor: float | None = None,
    factor: float = 2.0,
    unit: float = 1.0,
) -> None:
    """Require ``e(result) <= max(factor * e(eager), floor)``.

    Args:
        result: what the op gave.
        truth: float64, from the same rounded inputs.
        eager: PyTorch's own result in the dtype of ``result``, if the op may be as wrong as that.
        floor: error always allowed; by default the floor of the dtype of ``result``.
        factor: how many times PyTorch's own error is allowed.
        unit: size below which errors count as absolute.
    """
    allowed = VALUE_FLOORS[result.dtype] if floor is None else floor
    if eager is not None:
        allowed = max(allowed, factor * error(eager, truth, unit))
    seen = error(result, truth, unit)
    assert seen <= allowed, f"error {seen:.3g}, allowed {allowed:.3g}"


def check_layout(result: Tensor, x: Tensor) -> None:
    """Require the dtype, shape and strides of ``torch.empty_like(x)``."""
    wanted = torch.empty_like(x)
    assert result.dtype == wanted.dtype
    assert result.shape == wanted.shape
    assert result.stride() == wanted.stride()


def distance_to_boundary(v: Tensor, low: float, high: float) -> Tensor:
    """Return how far each ``v``, in levels, is from a rounding tie or from a clip edge."""
    tie = (v - torch.floor(v) - 0.5).abs()
    inside = (v > low - 0.5) & (v < high + 0.5)
    edge = torch.minimum((v - low).abs(), (v - high).abs())
    return torch.where(inside, torch.minimum(tie, edge), edge)


def band_of(v: Tensor, dtype: torch.dtype, width: float = 4.0) -> Tensor:
    """Return how near a boundary ``v``, computed in ``dtype``, cannot be told from the other side.

    The band is ``width`` units of rounding at the magnitude of ``v``.
    """
    return width * torch.finfo(dtype).eps * v.abs().clamp(min=1.0)


def check_quantized(
    result: Tensor,
    truth: Tensor,
    near: Tensor,
    level: Tensor | float,
    *,
    floor: float | None = None,
    most: float = MOST_FLIPS,
) -> None:
    """Require equality within ``floor``, but for a few flips by one level near a boundary.

    Args:
        result: what the op gave.
        truth: float64, from the same rounded inputs.
        near: bool, true for the elements so near a rounding tie or a clip edge that they may flip.
        level: size of one level, broadcastable to ``truth``.
        floor: relative error allowed away from the flips; by default the floor of the dtype.
        most: largest fraction of elements that may flip; one flip is always allowed.
    """
    floor = VALUE_FLOORS[result.dtype] if floor is None else floor
    wide, truth = result.detach().double(), truth.detach().double()
    gap = (wide - truth).abs()
    allowed = floor * truth.abs().clamp(min=1.0)
    flipped = ~(gap <= allowed)
    assert not (flipped & ~near).any(), "wrong away from every boundary, or NaN"
    levels = torch.as_tensor(level, dtype=torch.float64).expand_as(truth)
    by_one = (gap - levels).abs() <= 2 * allowed
    assert bool(by_one[flipped].all()), "a flip by another amount than one level"
    count, allowed_count = int(flipped.sum()), max(1, int(most * truth.numel()))
    assert count <= allowed_count, f"{count} flips of {truth.numel()}, {allowed_count} allowed"
