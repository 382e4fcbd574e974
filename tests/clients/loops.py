"""What the tests of training loops share: a student of a small model, with images or words."""

from typing import Any

import timm
import torch
import transformers
from torch import nn
from torch.utils.data import Dataset

import daqakd

from .test_transformers import MODELS
from .witness import Witness, quantized_layers

CLASSES = 4


def image_model() -> nn.Module:
    """Return a transformer and its convolution, from random weights."""
    return timm.create_model("test_vit", pretrained=False, num_classes=CLASSES, img_size=32)


def norm_model() -> nn.Module:
    """Return a convolutional model with BatchNorm."""
    return timm.create_model("test_resnet", pretrained=False, num_classes=CLASSES)


def text_model(name: str = "BertForSequenceClassification", **options: Any) -> nn.Module:
    """Return a tiny model of transformers."""
    configuration, known = MODELS[name]
    config = getattr(transformers, configuration)(**known, **options)
    return getattr(transformers, name)(config)


class Images(Dataset):
    """Images and labels from a seed."""

    def __init__(self, count: int = 16) -> None:
        generator = torch.Generator().manual_seed(count)
        self.images = torch.randn(count, 3, 32, 32, generator=generator)
        self.labels = torch.arange(count) % CLASSES

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        return self.images[i], self.labels[i]


class Words(Dataset):
    """Sentences and labels as transformers takes them."""

    def __init__(self, count: int = 16) -> None:
        generator = torch.Generator().manual_seed(count)
        self.words = torch.randint(3, 64, (count, 8), generator=generator)

    def __len__(self) -> int:
        return len(self.words)

    def __getitem__(self, i: int) -> dict[str, torch.Tensor]:
        words = self.words[i]
        return {
            "input_ids": words,
            "attention_mask": torch.ones_like(words),
            "labels": words[0] % 2,
        }


def quantized(model: nn.Module, method: str = "lsq", **options: Any) -> nn.Module:
    """Return a W4A4 student, not calibrated."""
    return daqakd.quantize(model, weight_bits=4, act_bits=4, method=method, **options)


def check_runs_quantized(student: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """Require every layer that says so to compute quantized in this call; return its output."""
    with Witness(student) as witness:
        output = student(*args, **kwargs)
    witness.check(set(quantized_layers(student)))
    return output
