"""The operations of augmentation on one image uint8 ``[3, height, width]``, by one program.

Each reads ``source`` and writes ``target``, BLOCK pixels of a channel at a time.
"""

import triton
import triton.language as tl

from ._geometry import affine, fixed, pixel

LUT, EQUALIZE, FIXED, NEAREST, BILINEAR = (tl.constexpr(code) for code in range(1, 6))
AUTOCONTRAST_PIL, CONTRAST_PIL, COLOR_PIL, SHARPNESS_PIL = (
    tl.constexpr(code) for code in range(6, 10)
)
AUTOCONTRAST, CONTRAST, COLOR, SHARPNESS = (tl.constexpr(code) for code in range(10, 14))


@triton.jit
def truncated(v):
    """Round toward zero after clipping to a byte; NaN becomes 0."""
    return tl.where(v > 0, tl.where(v < 255, v, 255), 0).to(tl.int32).to(tl.uint8)


@triton.jit
def _grey(source, at, area, mask, PIL: tl.constexpr):
    r = tl.load(source + at, mask=mask, other=0)
    g = tl.load(source + area + at, mask=mask, other=0)
    b = tl.load(source + 2 * area + at, mask=mask, other=0)
    if PIL:
        r, g, b = r.to(tl.int32), g.to(tl.int32), b.to(tl.int32)
        return (19595 * r + 38470 * g + 7471 * b + 32768) >> 16
    r, g, b = r.to(tl.float32), g.to(tl.float32), b.to(tl.float32)
    return ((0.2989 * r + 0.587 * g) + 0.114 * b).to(tl.int32)


@triton.jit
def _blended(v, d, factor, rest, PIL: tl.constexpr):
    if PIL:
        return truncated(d + factor * (v - d))
    return truncated(factor * v + rest * d)


@triton.jit
def _through_table(source, target, table, area, BLOCK: tl.constexpr):
    """Look up all pixels in ``table`` uint8 ``[3, 256]``."""
    for c in range(3):
        for start in range(0, area, BLOCK):
            at = start + tl.arange(0, BLOCK)
            v = tl.load(source + c * area + at, mask=at < area, other=0).to(tl.int32)
            tl.store(target + c * area + at, tl.load(table + c * 256 + v), mask=at < area)


@triton.jit
def _lut(source, target, lut, area, BLOCK: tl.constexpr):
    for start in range(0, 3 * area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        v = tl.load(source + at, mask=at < 3 * area, other=0).to(tl.int32)
        tl.store(target + at, tl.load(lut + v), mask=at < 3 * area)


@triton.jit
def _equalize(source, target, table, area, BLOCK: tl.constexpr):
    values = tl.arange(0, 256)
    for c in range(3):
        counts = tl.zeros([256], tl.int32)
        for start in range(0, area, BLOCK):
            at = start + tl.arange(0, BLOCK)
            v = tl.load(source + c * area + at, mask=at < area, other=0).to(tl.int32)
            counts += tl.histogram(v, 256)
            outside = tl.minimum(tl.maximum(start + BLOCK - area, 0), BLOCK)
            counts -= tl.where(values == 0, outside, 0)
        largest = tl.max(tl.where(counts > 0, values, 0), 0)
        step = (area - tl.sum(tl.where(values == largest, counts, 0), 0)) // 255
        below = tl.cumsum(counts, 0) - counts
        spread = tl.minimum((step // 2 + below) // tl.maximum(step, 1), 255)
        tl.store(table + c * 256 + values, tl.where(step == 0, values, spread).to(tl.uint8))
    tl.debug_barrier()
    _through_table(source, target, table, area, BLOCK)


@triton.jit
def _stretched(values, low, high, PIL: tl.constexpr):
    if PIL:
        spread = tl.maximum(high - low, 1).to(tl.float64)
        scale = tl.full([1], 255.0, tl.float64) / spread
        return truncated(values.to(tl.float64) * scale + (-low).to(tl.float64) * scale)
    scale = tl.div_rn(1.0, tl.maximum(high - low, 1).to(tl.float32)) * 255.0
    return truncated((values - low).to(tl.float32) * scale)


@triton.jit
def _autocontrast(source, target, table, area, PIL: tl.constexpr, BLOCK: tl.constexpr):
    values = tl.arange(0, 256)
    for c in range(3):
        low, high = 255, 0
        for start in range(0, area, BLOCK):
            at = start + tl.arange(0, BLOCK)
            address, inside = source + c * area + at, at < area
            low = tl.minimum(low, tl.min(tl.load(address, mask=inside, other=255).to(tl.int32), 0))
            high = tl.maximum(high, tl.max(tl.load(address, mask=inside, other=0).to(tl.int32), 0))
        stretched = _stretched(values, low, high, PIL)
        kept = tl.where(low < high, stretched, values.to(tl.uint8))
        tl.store(table + c * 256 + values, kept)
    tl.debug_barrier()
    _through_table(source, target, table, area, BLOCK)


@triton.jit
def _mean(source, area, PIL: tl.constexpr, BLOCK: tl.constexpr):
    """Return the mean grey that contrast blends with, float32."""
    total = tl.zeros([1], tl.int64)
    for start in range(0, area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        grey = _grey(source, at, area, at < area, PIL)
        total += tl.sum(tl.where(at < area, grey, 0), 0)
    if PIL:
        return ((2 * total + area) // (2 * area)).to(tl.float32)
    return tl.div_rn(total.to(tl.float32), (area + tl.zeros([1], tl.int64)).to(tl.float32))


@triton.jit
def _contrast(source, target, factors, area, PIL: tl.constexpr, BLOCK: tl.constexpr):
    mean, factor, rest = _mean(source, area, PIL, BLOCK), tl.load(factors), tl.load(factors + 1)
    for start in range(0, 3 * area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        v = tl.load(source + at, mask=at < 3 * area, other=0).to(tl.float32)
        tl.store(target + at, _blended(v, mean, factor, rest, PIL), mask=at < 3 * area)


@triton.jit
def _color(source, target, factors, area, PIL: tl.constexpr, BLOCK: tl.constexpr):
    factor, rest = tl.load(factors), tl.load(factors + 1)
    for start in range(0, area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        grey = _grey(source, at, area, at < area, PIL).to(tl.float32)
        for c in range(3):
            v = tl.load(source + c * area + at, mask=at < area, other=0).to(tl.float32)
            mixed = _blended(v, grey, factor, rest, PIL)
            tl.store(target + c * area + at, mixed, mask=at < area)


@triton.jit
def _sharpness(source, target, factors, height, width, PIL: tl.constexpr, BLOCK: tl.constexpr):
    area = height * width
    factor, rest = tl.load(factors), tl.load(factors + 1)
    for c in range(3):
        channel = source + c * area
        for start in range(0, area, BLOCK):
            at = start + tl.arange(0, BLOCK)
            y, x, mask = at // width, at % width, at < area
            v = tl.load(channel + at, mask=mask, other=0).to(tl.int32)
            total = 4 * v
            for neighbour in range(9):
                above, left = y + neighbour // 3 - 1, x + neighbour % 3 - 1
                total += pixel(channel, above, left, height, width, mask)
            inner = (y > 0) & (y < height - 1) & (x > 0) & (x < width - 1)
            mean = tl.where(inner, (2 * total + 13) // 26, v).to(tl.float32)
            sharp = _blended(v.to(tl.float32), mean, factor, rest, PIL)
            small = (height < 3) | (width < 3)
            tl.store(target + c * area + at, tl.where(small, v.to(tl.uint8), sharp), mask=mask)


@triton.jit
def apply(source, target, table, kind, lut, integer, real, height, width, BLOCK: tl.constexpr):
    """Apply one operation of the plan."""
    area = height * width
    if kind == LUT:
        _lut(source, target, lut, area, BLOCK)
    elif kind == EQUALIZE:
        _equalize(source, target, table, area, BLOCK)
    elif kind == FIXED:
        fixed(source, target, integer, height, width, BLOCK)
    elif kind == NEAREST:
        affine(source, target, real, height, width, False, BLOCK)
    elif kind == BILINEAR:
        affine(source, target, real, height, width, True, BLOCK)
    elif kind == AUTOCONTRAST_PIL:
        _autocontrast(source, target, table, area, True, BLOCK)
    elif kind == CONTRAST_PIL:
        _contrast(source, target, real, area, True, BLOCK)
    elif kind == COLOR_PIL:
        _color(source, target, real, area, True, BLOCK)
    elif kind == SHARPNESS_PIL:
        _sharpness(source, target, real, height, width, True, BLOCK)
    elif kind == AUTOCONTRAST:
        _autocontrast(source, target, table, area, False, BLOCK)
    elif kind == CONTRAST:
        _contrast(source, target, real, area, False, BLOCK)
    elif kind == COLOR:
        _color(source, target, real, area, False, BLOCK)
    elif kind == SHARPNESS:
        _sharpness(source, target, real, height, width, False, BLOCK)
