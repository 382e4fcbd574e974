"""timm: models of many families, from random weights, on small images."""

from typing import Any

import pytest
import timm
import torch

import daqakd

from .trial import Subject, trial, with_methods

# name: size of the images, arguments that make it small
MODELS: dict[str, tuple[int, dict[str, Any]]] = {
    "resnet18": (64, {}),
    "mobilenetv3_small_050": (64, {}),
    "efficientnet_b0": (64, {}),
    "regnetx_002": (64, {}),
    "densenet121": (64, {}),
    "convnext_atto": (64, {}),
    "vit_tiny_patch16_224": (64, {}),
    "deit_tiny_distilled_patch16_224": (64, {}),
    "swin_tiny_patch4_window7_224": (56, {"depths": (2, 2), "num_heads": (3, 6)}),
    "swinv2_cr_tiny_ns_224": (64, {"depths": (2, 2), "num_heads": (3, 6)}),
    "beit_base_patch16_224": (64, {"embed_dim": 96, "depth": 3, "num_heads": 3}),
    "eva02_tiny_patch14_224": (56, {}),
    "mixer_s32_224": (64, {}),
    "cait_xxs24_224": (64, {}),
    "xcit_nano_12_p16_224": (64, {}),
    "coat_tiny": (64, {}),
    "levit_128s": (224, {}),
    "pit_ti_224": (64, {}),
    "poolformer_s12": (64, {}),
    "mobilevit_xxs": (64, {}),
    "edgenext_xx_small": (64, {}),
    "efficientformerv2_s0": (64, {}),
    "fastvit_t8": (64, {}),
    "repvgg_a0": (64, {}),
    "ghostnet_050": (64, {}),
    "test_nfnet": (64, {}),
    "resnetv2_50": (64, {"layers": (1, 1, 1, 1)}),
    "dpn48b": (64, {}),
    "hrnet_w18_small": (32, {}),
    "dla34": (64, {}),
    "crossvit_tiny_240": (240, {"depth": ((1, 4, 0),)}),
    "coatnet_pico_rw_224": (64, {}),
    "hiera_tiny_224": (64, {"embed_dim": 48, "stages": (1, 1, 2, 1)}),
    "visformer_tiny": (64, {}),
    "twins_pcpvt_small": (64, {}),
    "res2net50_26w_4s": (64, {"layers": (1, 1, 1, 1)}),
    "xception41": (64, {}),
    "rexnet_100": (64, {}),
    "starnet_s1": (64, {}),
    "efficientvit_b0": (64, {}),
    "inception_next_atto": (64, {}),
    "tiny_vit_5m_224": (64, {}),
    "pvt_v2_b0": (64, {}),
    "convmixer_768_32": (64, {}),
}
# heads that start from zero, which only LSQ can: what the error says to do
ZERO_HEADS = {"mixer_s32_224": "head", "hiera_tiny_224": "head.fc"}


def build(name: str) -> torch.nn.Module:
    size, small = MODELS[name]
    options = {"pretrained": False, "num_classes": 10, **small}
    try:
        return timm.create_model(name, img_size=size, **options)
    except TypeError:  # takes images of any size
        return timm.create_model(name, **options)


@pytest.mark.parametrize(("name", "method"), with_methods(MODELS))
def test_timm(name, method, table):
    images = torch.randn(2, 3, MODELS[name][0], MODELS[name][0])
    head = ZERO_HEADS.get(name)
    options = {"overrides": {head: {"weight_method": "lsq"}}} if head else {}
    row = trial(Subject("timm", name, lambda: build(name), images, method, options))
    assert row.quantized > 3
    table(row)


@pytest.mark.parametrize("name", ZERO_HEADS)
@pytest.mark.parametrize("method", ["pact", "dorefa", "ewgs"])
def test_zero_heads_are_refused_with_a_way_out(name, method):
    with pytest.raises(daqakd.InputError, match=f"^{ZERO_HEADS[name]}: .* all zero.*='lsq'"):
        daqakd.quantize(build(name), weight_bits=4, act_bits=4, method=method)
