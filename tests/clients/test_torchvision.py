"""torchvision: classifiers with and without auxiliary heads, and models of segmentation."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.models import segmentation

from .trial import Subject, trial, with_methods

SEGMENTATION = {"weights": None, "weights_backbone": None, "num_classes": 4}


def transformer() -> nn.Module:
    return models.VisionTransformer(
        image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64
    )


def windows() -> nn.Module:
    return models.SwinTransformer(
        patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4], window_size=[4, 4]
    )


def several_axes() -> nn.Module:
    return models.MaxVit(
        input_size=(64, 64),
        stem_channels=16,
        partition_size=2,
        block_channels=[16, 32],
        block_layers=[1, 1],
        head_dim=8,
        stochastic_depth_prob=0.0,
    )


# name: how it is made, size of the images
MODELS = {
    "resnet18": (models.resnet18, 64),
    "mobilenet_v3_small": (models.mobilenet_v3_small, 64),
    "efficientnet_b0": (models.efficientnet_b0, 64),
    "googlenet": (partial(models.googlenet, weights=None, init_weights=False), 64),
    "inception_v3": (
        partial(models.inception_v3, weights=None, init_weights=False, aux_logits=False),
        75,
    ),
    "densenet121": (models.densenet121, 64),
    "shufflenet_v2_x0_5": (models.shufflenet_v2_x0_5, 64),
    "squeezenet1_1": (models.squeezenet1_1, 64),
    "mnasnet0_5": (models.mnasnet0_5, 64),
    "regnet_y_400mf": (models.regnet_y_400mf, 64),
    "convnext_tiny": (models.convnext_tiny, 64),
    "vision_transformer": (transformer, 32),
    "swin_transformer": (windows, 32),
    "maxvit": (several_axes, 64),
    "lraspp_mobilenet_v3_large": (
        partial(segmentation.lraspp_mobilenet_v3_large, **SEGMENTATION),
        64,
    ),
    "fcn_resnet50": (partial(segmentation.fcn_resnet50, aux_loss=True, **SEGMENTATION), 64),
}


# its head starts from zero, which only LSQ can
ZERO_HEAD = {"vision_transformer": {"overrides": {"heads.head": {"weight_method": "lsq"}}}}


@pytest.mark.parametrize(("name", "method"), with_methods(MODELS))
def test_torchvision(name, method, table):
    build, size = MODELS[name]
    images = torch.randn(2, 3, size, size)
    row = trial(Subject("torchvision", name, build, images, method, ZERO_HEAD.get(name, {})))
    assert row.quantized > 3
    table(row)
