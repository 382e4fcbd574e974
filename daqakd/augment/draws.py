"""Counter-based random draws (Philox4x32-10, Salmon et al., SC 2011): no state, any order.

A draw depends on (seed, epoch, image index, slot) alone, so batches, workers and restarts do not
matter. Written in int64 operations: the same bits on every device.
"""

import torch
from torch import Tensor

from .._config import has_64_bits
from .._errors import InputError, seen

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF
ROUNDS = 10

# slots: what a draw is for; their numbers are part of every pixel's definition
ORDER = 0  # the images' order in an epoch
AUGMENT = 1  # the generators of a registered transform
BOX = 2  # CutMix's box, MixUp's weight
CROP = 3  # crop, flip, whether to erase
DEPTHS, WEIGHTS = 4, 5  # of AugMix's chains
FACTORS, SEQUENCE = 6, 7  # of the colour jitter
COMPOSITION = 8  # compositions to search among
GENERATOR = 9  # the seed of a generator that keeps 32 bits
NEGATIVES = 10  # of a contrastive loss
PARAMETERS = 11  # the generator that a loss's parameters start from
ERASE = 16  # on: one slot per attempt
OPERATION = 32  # on: one slot per operation of an image
RESIZE = 64  # on: one slot per attempt


def _multiply(x: Tensor, factor: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 32 bits of ``x * factor`` for ``x`` below 2^32."""
    product = x * factor  # modulo 2^64: a negative number has the same bits
    return (product >> 32) & MASK, product & MASK


def philox(seed: int, epoch: int, index: Tensor, slot: int | Tensor) -> Tensor:
    """Return four 32-bit words per index: int64 ``[..., 4]`` in [0, 2^32).

    Args:
        seed: 64 bits are used, as :func:`check_seed` takes them.
        epoch: 32 bits are used.
        index: int64, any shape, non-negative.
        slot: what the draw is for; a tensor of slots is broadcast against ``index``.
    """
    slots = slot if isinstance(slot, Tensor) else torch.full_like(index, slot)
    index, slots = torch.broadcast_tensors(index, slots)
    key = (seed & MASK, epoch & MASK)
    x0, x1 = index & MASK, index >> 32
    x2, x3 = slots & MASK, torch.full_like(index, (seed >> 32) & MASK)
    for _ in range(ROUNDS):
        high_0, low_0 = _multiply(x0, MULTIPLIERS[0])
        high_2, low_2 = _multiply(x2, MULTIPLIERS[1])
        x0, x1, x2, x3 = high_2 ^ x1 ^ key[0], low_2, high_0 ^ x3 ^ key[1], low_0
        key = ((key[0] + WEYL[0]) & MASK, (key[1] + WEYL[1]) & MASK)
    return torch.stack([x0, x1, x2, x3], -1)


def check_seed(seed: int) -> int:
    """Return a seed of 64 bits; as torch has it, -1 is 2^64 - 1.

    Raises:
        InputError: another type, or more bits.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not has_64_bits(seed):
        raise InputError(f"seed: expected an integer from -2^63 to 2^64 - 1, got {seen(seed)}")
    return seed


def generator_seed(seed: int) -> int:
    """Return the seed for a generator that keeps 32 bits, as torch's on the CPU: mixed of 64."""
    if 0 <= seed <= MASK:
        return seed
    return int(philox(seed, 0, torch.tensor(0), GENERATOR)[0])


def uniform(words: Tensor) -> Tensor:
    """Map 32-bit words to float64 in [0, 1)."""
    return words.to(torch.float64) * 2.0**-32


def choose(words: Tensor, count: int | Tensor) -> Tensor:
    """Map 32-bit words to integers below ``count``, equally likely to within 2^-32."""
    return (words * count) >> 32


def image_seeds(seed: int, epoch: int, index: Tensor) -> Tensor:
    """Return one 63-bit generator seed per image: int64, shape of ``index``."""
    words = philox(seed, epoch, index, AUGMENT)
    return ((words[..., 0] & 0x7FFFFFFF) << 32) | words[..., 1]


def permutation(seed: int, epoch: int, pool: Tensor) -> Tensor:
    """Return the indices of ``pool`` in the epoch's order."""
    words = philox(seed, epoch, pool, ORDER)
    key = (words[..., 0] << 31) | (words[..., 1] >> 1)
    return pool[torch.argsort(key, stable=True)]
