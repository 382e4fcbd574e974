"""Affine maps of images uint8 ``[3, height, width]``, 0 outside; one program per image."""

import triton
import triton.language as tl

from ._maths import half_even

BORDER = tl.constexpr(2)  # a position further outside is moved here: positions stay small


@triton.jit
def _fused(a, b, c):
    """Return a * b + c rounded to float32; by float64, for the interpreter has no fma."""
    return (a.to(tl.float64) * b + c).to(tl.float32)


@triton.jit
def _onto_border(position, side):
    """Clamp positions to [-BORDER, side]; NaN becomes -BORDER."""
    return tl.where(position > -BORDER, tl.where(position < side, position, side), -BORDER)


@triton.jit
def pixel(source, y, x, height, width, mask):
    """Return pixels of a channel as int32, 0 outside."""
    inside = mask & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    return tl.load(source + y * width + x, mask=inside, other=0).to(tl.int32)


@triton.jit
def fixed(source, target, map, height, width, BLOCK: tl.constexpr):
    """Pillow's affine map in units of 2^-16 pixels, nearest neighbour."""
    area = height * width
    for start in range(0, area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        y, x = at // width, at % width
        column = (tl.load(map) * x + tl.load(map + 1) * y + tl.load(map + 2)) >> 16
        row = (tl.load(map + 3) * x + tl.load(map + 4) * y + tl.load(map + 5)) >> 16
        row, column = _onto_border(row, height), _onto_border(column, width)
        for c in range(3):
            v = pixel(source + c * area, row, column, height, width, at < area)
            tl.store(target + c * area + at, v.to(tl.uint8), mask=at < area)


@triton.jit
def _grid(map, x, y, side):
    """Return where output pixels lie along an axis, by torchvision's affine grid."""
    at = _fused(y, tl.load(map + 1), x * tl.load(map)) + tl.load(map + 2)
    half = side.to(tl.float32) * 0.5
    return _onto_border(_fused(at + 1.0, half, -0.5), side.to(tl.float32))


@triton.jit
def _from_center(position, side):
    """Return how far from the middle of an axis positions are."""
    return position.to(tl.float32) - (side - 1).to(tl.float32) * 0.5


@triton.jit
def affine(source, target, map, height, width, BILINEAR: tl.constexpr, BLOCK: tl.constexpr):
    """Torchvision's affine map, bilinear or nearest neighbour."""
    area = height * width
    for start in range(0, area, BLOCK):
        at = start + tl.arange(0, BLOCK)
        mask = at < area
        x, y = _from_center(at % width, width), _from_center(at // width, height)
        right, down = _grid(map, x, y, width), _grid(map + 3, x, y, height)
        if BILINEAR:
            top, left = tl.floor(down), tl.floor(right)
            s, e = down - top, right - left
            north, west = 1.0 - s, 1.0 - e
        else:
            top, left = half_even(down), half_even(right)
        row, column = top.to(tl.int32), left.to(tl.int32)
        for c in range(3):
            channel = source + c * area
            v = pixel(channel, row, column, height, width, mask)
            if BILINEAR:
                total = v.to(tl.float32) * (north * west)
                near = pixel(channel, row, column + 1, height, width, mask)
                total = _fused(near, (north * e).to(tl.float64), total)
                near = pixel(channel, row + 1, column, height, width, mask)
                total = _fused(near, (s * west).to(tl.float64), total)
                near = pixel(channel, row + 1, column + 1, height, width, mask)
                total = _fused(near, (s * e).to(tl.float64), total)
                v = half_even(total).to(tl.int32)
            tl.store(target + c * area + at, v.to(tl.uint8), mask=mask)
