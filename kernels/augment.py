"""Augmentation by a plan: one program per image, whose operations alternate between two buffers."""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._pixels import apply, truncated

# debug keeps assertions: a plan with wild rows stops the launch, as the native kernel does
OPTIONS = {"num_warps": 8, "enable_fp_fusion": False, "debug": True, "sanitize_overflow": False}
BLOCK = 1024  # pixels of a channel at a time
TABLE = tl.constexpr(768)  # bytes of scratch besides three images
SCRATCH = 9, 768  # per pixel, and the table
# a plan is a slice of many images' draws and starts anywhere: no variant for each way to start
ROWS = ("index", "crop", "flip", "setting", "share", "erase", "partner", "box", "kept")


@triton.jit
def _crop(image, target, corner, flip, height, width, BLOCK: tl.constexpr):
    area = height * width
    top, left = tl.load(corner), tl.load(corner + 1)
    for start in range(0, area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y, x = at // width + top, at % width
        x = tl.where(flip, width - 1 - x, x) + left
        inside = (at < area) & (y >= 0) & (y < height) & (x >= 0) & (x < width)
        for c in range(3):
            v = tl.load(image + c * area + y * width + x, mask=inside, other=0)
            tl.store(target + c * area + at, v, mask=at < area)


@triton.jit
def _copy(source, target, count, BLOCK: tl.constexpr):
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        tl.store(target + at, tl.load(source + at, mask=at < count), mask=at < count)


@triton.jit
def _add_chain(source, total, weight, count, FIRST: tl.constexpr, BLOCK: tl.constexpr):
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        part = weight * tl.load(source + at, mask=at < count, other=0).to(tl.float32)
        if not FIRST:
            part = tl.load(total + at, mask=at < count) + part
        tl.store(total + at, part, mask=at < count)


@triton.jit
def _within(box, y, x):
    left, top, right, bottom = tl.load(box), tl.load(box + 1), tl.load(box + 2), tl.load(box + 3)
    return (x >= left) & (x < right) & (y >= top) & (y < bottom)


@triton.jit
def _write(y, values, v, c, at, mask, channel_step, pixel_step):
    """Store pixels, through ``values`` unless the output is bytes too."""
    address = y + c * channel_step + at * pixel_step
    if y.dtype.element_ty == tl.uint8:
        tl.store(address, v, mask=mask)
    else:
        found = tl.load(values + c * 256 + v.to(tl.int32))
        tl.store(address, found.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _run_chain(
    buffers, table, chosen_rows, settings, kind, lut, integer, real, height, width, slots,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """Apply ``slots`` settings to the first of two buffers; return which one has the result."""
    n = 3 * height * width
    here = 0
    for s in range(slots):
        tl.debug_barrier()
        chosen = tl.load(chosen_rows + s).to(tl.int64)
        inside = (chosen >= 0) & (chosen < settings)
        tl.device_assert(inside, "setting: expected a row of the settings")
        code = tl.load(kind + chosen).to(tl.int32)
        if code != 0:
            source, target = buffers + here, buffers + (n - here)
            apply(
                source, target, table, code, lut + 256 * chosen, integer + 6 * chosen,
                real + 6 * chosen, height, width, BLOCK,
            )  # fmt: skip
            here = n - here
    return here


@triton.jit
def _store_row(
    y, bytes, total, values, erase, height, width, channel_step, pixel_step, SHARE: tl.constexpr,
    ERASE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Store a finished image: the sum of its chains if SHARE, else its bytes."""
    area = height * width
    for start in range(0, area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        for c in range(3):
            if SHARE:
                v = truncated(tl.load(total + c * area + at, mask=at < area, other=0.0))
            else:
                v = tl.load(bytes + c * area + at, mask=at < area, other=0)
            if ERASE:
                v = tl.where(_within(erase, at // width, at % width), 0, v).to(tl.uint8)
            _write(y, values, v, c, at, at < area, channel_step, pixel_step)


@triton.jit(do_not_specialize_on_alignment=ROWS)
def augment_rows_kernel(
    pixels,  # [images, 3, height, width]
    index,  # [rows]
    crop,  # [rows, 2]
    flip,  # [rows]
    setting,  # [rows, chains, slots]
    kind,  # [settings]
    lut,  # [settings, 256]
    integer,  # [settings, 6]
    real,  # [settings, 6]
    share,  # [rows, 1 + chains]
    erase,  # [rows, 4]
    values,  # [3, 256]
    scratch,  # [rows, 9 * height * width + 768]
    total,  # [rows, 3, height, width]
    y,  # [rows, 3, height, width], any order of the last three
    images,
    settings,
    height,
    width,
    chains,
    slots,
    channel_step,
    pixel_step,
    SHARE: tl.constexpr,
    ERASE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: one row. SHARE and ERASE say whether the plan has them."""
    row = tl.program_id(0).to(tl.int64)
    n = 3 * height * width
    original = scratch + row * (3 * n + TABLE)
    buffers, table = original + n, original + 3 * n
    total += row * n
    which = tl.load(index + row)
    tl.device_assert((which >= 0) & (which < images), "index: expected a row of pixels")
    image = pixels + which * n
    _crop(image, original, crop + 2 * row, tl.load(flip + row), height, width, BLOCK)
    tl.debug_barrier()
    if SHARE:
        share += row * (1 + chains)
        _add_chain(original, total, tl.load(share), n, True, BLOCK)
    here = 0
    for c in range(chains):
        tl.debug_barrier()
        _copy(original, buffers, n, BLOCK)
        here = _run_chain(
            buffers, table, setting + (row * chains + c) * slots, settings, kind, lut, integer,
            real, height, width, slots, BLOCK,
        )  # fmt: skip
        tl.debug_barrier()
        if SHARE:
            _add_chain(buffers + here, total, tl.load(share + 1 + c), n, False, BLOCK)
    tl.debug_barrier()
    _store_row(
        y + row * n, buffers + here, total, values, erase + 4 * row, height, width, channel_step,
        pixel_step, SHARE, ERASE, BLOCK,
    )  # fmt: skip


@triton.jit(do_not_specialize_on_alignment=ROWS)
def augment_mix_kernel(
    bytes,  # [rows, 3, height, width]
    partner,  # [outputs]
    box,  # [outputs, 4]
    kept,  # [outputs]: weight of the own image
    values,  # [3, 256]
    y,  # [outputs, 3, height, width], any order of the last three
    rows,
    height,
    width,
    channel_step,
    pixel_step,
    BOX: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One program: BLOCK pixels of one output. BOX says CutMix, else MixUp."""
    image, at = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    area = height * width
    mask = at < area
    which = tl.load(partner + image)
    tl.device_assert((which >= 0) & (which < rows), "partner: expected a row of the plan")
    own, other = bytes + image * 3 * area, bytes + which * 3 * area
    y += image * 3 * area
    for c in range(3):
        mine = tl.load(own + c * area + at, mask=mask, other=0)
        theirs = tl.load(other + c * area + at, mask=mask, other=0)
        if BOX:
            v = tl.where(_within(box + 4 * image, at // width, at % width), theirs, mine)
            _write(y, values, v, c, at, mask, channel_step, pixel_step)
        else:
            weight = tl.load(kept + image)
            first = weight * tl.load(values + c * 256 + mine.to(tl.int32))
            second = (1.0 - weight) * tl.load(values + c * 256 + theirs.to(tl.int32))
            address = y + c * channel_step + at * pixel_step
            tl.store(address, (first + second).to(y.dtype.element_ty), mask=mask)


def _steps(y: Tensor, area: int) -> tuple[int, int]:
    """Return how far apart channels and pixels are."""
    return (area, 1) if y.is_contiguous() else (1, 3)


def augment_rows(
    plan: tuple[Tensor, ...],  # pixels, index, crop, flip, setting, kind, lut, integer, real
    share: Tensor | None,
    erase: Tensor | None,
    values: Tensor | None,
    y: Tensor,  # [rows, 3, height, width]
) -> None:
    """Augment rows into ``y``, as bytes without ``values``."""
    pixels, setting, kind, real = plan[0], plan[4], plan[5], plan[8]
    height, width = pixels.shape[2:]
    area, per_pixel, table = height * width, *SCRATCH
    rows, chains, slots = setting.shape
    scratch = pixels.new_empty(rows * (per_pixel * area + table))
    total = real if share is None else real.new_empty(rows * 3 * area)
    absent: Any = [real if t is None else t for t in (share, erase, values)]
    shape = len(pixels), len(kind), height, width, chains, slots, *_steps(y, area)
    flags = {"SHARE": share is not None, "ERASE": erase is not None, "BLOCK": BLOCK}
    augment_rows_kernel[rows,](*plan, *absent, scratch, total, y, *shape, **flags, **OPTIONS)


def augment_mix(
    bytes: Tensor,  # [rows, 3, height, width]
    partner: Tensor,
    box: Tensor | None,
    weight: Tensor | None,
    values: Tensor | None,
    y: Tensor,  # [outputs, 3, height, width]
) -> None:
    """Mix augmented rows into ``y``."""
    height, width = bytes.shape[2:]
    area = height * width
    grid = len(partner), triton.cdiv(area, BLOCK)
    absent: Any = [partner if t is None else t for t in (box, weight, values)]
    shape = len(bytes), height, width, *_steps(y, area)
    flags = {"BOX": box is not None, "BLOCK": BLOCK}
    augment_mix_kernel[grid](bytes, partner, *absent, y, *shape, **flags, **OPTIONS)
