"""The learning rate as a function of the step: nothing to save, nothing to restore."""

import math


def lr_factor(step: int, total: int, warmup: int = 0, start: float = 0.0) -> float:
    """Return the fraction of the peak learning rate: linear warm-up, then cosine to 0.

    Args:
        step: 0-based; ``step == total`` is the end, where the fraction is 0.
        total: steps of the whole training.
        warmup: steps of the warm-up; the peak is reached at ``step == warmup``.
        start: fraction at step 0 of the warm-up.
    """
    if step < warmup:
        return start + (1 - start) * step / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
