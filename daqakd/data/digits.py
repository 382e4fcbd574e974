"""scikit-learn's 1,797 handwritten digits, resized to 32 x 32 RGB; needs no download."""

import numpy as np
import torch

from .._errors import InputError
from .dataset import Images, split
from .resize import rgb_stack

SIZE = 32
TEST_FRACTION = 0.2
SPLIT_SEED = 0


def read_digits(size: int | None) -> tuple[list[str], Images, Images]:
    """Return class names, training images and test images; the split never changes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("digits needs scikit-learn: pip install 'daqakd[demo]'") from error
    raw = load_digits()
    grey = (raw.images * (255 / 16)).astype(np.uint8)
    pixels = rgb_stack(grey, size or SIZE)
    labels = torch.from_numpy(raw.target).long()
    train, test = split(labels, TEST_FRACTION, SPLIT_SEED)
    names = [str(d) for d in range(10)]
    return names, Images(pixels[train], labels[train]), Images(pixels[test], labels[test])
