"""``bench``: the microbenchmarks as a table."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from ..bench.registry import BENCHMARKS, NUM_IMAGES, SIZES
from ..bench.run import bench_into
from ._job import chosen_device
from ._options import Device

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODULE:FUNCTION [...]")]
if TYPE_CHECKING:
    Op = str
else:
    Op = Literal[tuple(BENCHMARKS)]


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of ``bench``."""

    op: tuple[Op, ...] = ("lsq", "pact", "dorefa_activation", "dorefa_weight", "ewgs")
    """Ops to measure, forward and backward.

    codes packs quantized values and unpacks them; many is eight weights in one call, resnet20 that
    model's weights, step a training step of it at W2A2, kd_step one at W4A4 with a teacher,
    compiled_step the same under torch.compile, augment a batch of 32 x 32 pixels, against
    torchvision image by image.
    """
    size: tuple[int, ...] = SIZES
    """Elements of the input."""
    images: int = NUM_IMAGES
    """Images of a batch, for step and augment."""
    dtype: tuple[Literal["float32", "bfloat16", "float16"], ...] = ("float32", "bfloat16")
    """Dtypes of the input."""
    provider: Names = ()
    """Own functions to time beside the others: package.module:function gets (op, device), returns
    {name: function}; these are called as daqakd/bench/<op>.py calls its own."""
    turns: int = 9
    """How often every provider is timed; the median counts."""
    out: Path = Path("runs/bench")
    """Directory of bench.json and bench.csv."""
    device: Device = "auto"
    """Where to compute."""


def run(options: Options) -> None:
    """Time the ops."""
    device = chosen_device(options.device).type
    bench_into(
        options.out,
        options.op,
        options.size,
        options.dtype,
        device,
        options.turns,
        options.images,
        options.provider,
    )
