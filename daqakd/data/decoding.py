"""Image files, wherever their bytes lie: decoded to pixels of one shape, a little ahead of need."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from .._errors import InputError
from .resize import rgb_pixels

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")  # others start other programs
Part = TypeVar("Part")


def decode(file: Path | BinaryIO, size: int | None, name: str) -> np.ndarray:
    """Return RGB pixels ``uint8 [3, H, W]``, resized to ``size`` where given.

    Raises:
        InputError: it cannot be read as an image; ``name`` says which.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_pixels(image)
            image.load()
            return rgb_pixels(image, size, name)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise many kinds, SyntaxError among them
        unnamed = isinstance(error, UnidentifiedImageError) and not isinstance(file, Path)
        reason = "of no format that is known" if unnamed else error
        raise InputError(
            f"{name}: not a readable image ({reason}); remove it or replace it, then run again"
        ) from error


def _check_pixels(image: Image.Image) -> None:
    """Refuse what Pillow only warns of: a small file that would fill the memory."""
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(f"{image.width} x {image.height} pixels, more than {limit}")


def alike(image: np.ndarray, name: str, wanted: tuple[int, ...], first: str) -> np.ndarray:
    """Return an image, after requiring that it is square and of the first one's shape.

    Raises:
        InputError: it is not; ``name`` says which.
    """
    _, height, width = image.shape
    if height == width and image.shape == wanted:
        return image
    but = "not square"
    if image.shape != wanted:
        but = f"but {first} is {wanted[1]} x {wanted[2]}"
    raise InputError(
        f"{name}: is {width} x {height} pixels, {but}; images must be square and of one size:"
        " pass --size to resize them"
    )


def ahead(
    parts: Iterable[Part], work: Callable[[Part], list[np.ndarray]], workers: int | None
) -> Iterator[np.ndarray]:
    """Yield what ``work`` makes of the parts in their order; threads run ahead of the reader.

    ``workers`` is their number, None for one per core.
    """
    threads = workers or os.cpu_count() or 1
    pending: deque[Future[list[np.ndarray]]] = deque()
    executor = ThreadPoolExecutor(threads)
    try:
        for part in parts:
            pending.append(executor.submit(work, part))
            if len(pending) > 2 * threads:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
