"""The format of CMI's state: its columns, its integers, and the logarithms read from it.

A sum is two int64 limbs of float64 row scalars: units of 2^-36, and of 2^-72 for the rest. Integers
add in any order, so batches, folds and ranks merge bit for bit.
"""

import torch
from torch import Tensor

LIMB_BITS = 36
EXTRA_COLUMNS = 5  # after C of probabilities: mass, entropy, cross-entropy, correct, invalid


def to_limbs(values: Tensor) -> Tensor:
    """Split float64 values into int64 limbs ``[..., 2]``, exact to 2^-73."""
    scaled = values * 2.0**LIMB_BITS
    high = torch.floor(scaled)
    low = torch.round((scaled - high) * 2.0**LIMB_BITS)
    return torch.stack([high, low], -1).to(torch.int64)


def from_limbs(limbs: Tensor) -> Tensor:
    """Join int64 limbs ``[..., 2]`` to float64 values."""
    wide = limbs.to(torch.float64)
    return wide[..., 0] * 2.0**-LIMB_BITS + wide[..., 1] * 2.0 ** (-2 * LIMB_BITS)


def log_distribution(q: Tensor) -> Tensor:
    """Return the logarithm of distributions ``[..., C]``, exact where one class has almost all."""
    peak = q.amax(-1, keepdim=True)
    rest = torch.where(q == peak, 0.0, q).sum(-1, keepdim=True)
    # 1 - rest loses a small rest; log1p(-rest) keeps it
    normalised = (peak + rest - 1).abs() < 1e-9
    log_peak = torch.where(normalised & (rest < peak), torch.log1p(-rest), peak.log())
    return torch.where(q == peak, log_peak, q.log())
