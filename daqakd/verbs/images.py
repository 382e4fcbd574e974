"""``data prepare``: decode a data set once."""

from .. import _console, options
from ..data import load, prepare


def run_prepare(verb: options.Prepare) -> None:
    """Prepare a data set and say what became of it."""
    out = prepare(verb.data, verb.out, size=verb.size, workers=verb.workers, quiet=False)
    dataset = load(out, holdout=0)
    held = dataset.train.pixels.nbytes + dataset.test.pixels.nbytes
    _console.say(
        f"prepared: {out}, {len(dataset.train):,} training and {len(dataset.test):,} test images"
        f" of {dataset.size} x {dataset.size}, {dataset.num_classes} classes, {held:,} bytes"
    )
