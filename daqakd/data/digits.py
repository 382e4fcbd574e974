"""scikit-learn's 1,797 handwritten digits, resized to 32 x 32 RGB; needs no download."""

import numpy as np
import torch
from PIL import Image

from .._errors import InputError
from .dataset import Images, split

SIZE = 32
TEST_SHARE = 0.2
SPLIT_SEED = 0


def read_digits(size: int | None) -> tuple[list[str], Images, Images]:
    """Return class names, training images and test images; the split never changes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("digits needs scikit-learn: pip install 'daqakd[demo]'") from error
    raw = load_digits()
    side = size or SIZE
    grey = (raw.images * (255 / 16)).astype(np.uint8)
    big = [Image.fromarray(g).resize((side, side), Image.Resampling.BILINEAR) for g in grey]
    pixels = torch.from_numpy(np.stack([np.asarray(g) for g in big]))
    pixels = pixels[:, None].expand(-1, 3, -1, -1).contiguous()
    labels = torch.from_numpy(raw.target).long()
    train, test = split(labels, TEST_SHARE, SPLIT_SEED)
    names = [str(d) for d in range(10)]
    return names, Images(pixels[train], labels[train]), Images(pixels[test], labels[test])
