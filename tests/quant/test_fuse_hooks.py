"""Fused students see their hooks run as the student's do."""

import itertools

import pytest
import torch
from torch import nn

import daqakd
from daqakd.quant.fusion.plan import fusion_of

from ..helpers.fusible import (
    CHAINS,
    OpCalls,
    assert_alike,
    chains_run,
    images,
    pair,
    quantized,
    step,
)
from ..helpers.small import SlimResNet

HOOKED = {  # name: the module, and how many chains do not run with hooks on it
    "norm": ("bn1", 1),
    "second norm": ("blocks.1.bn1", 1),
    "layer": ("blocks.0.conv2", 1),
    "quantizer": ("blocks.0.conv2.act_quantizer", 1),
    "container": ("blocks.0", CHAINS),
    "sequence": ("blocks", CHAINS),
    "root": ("", 0),
    "classifier": ("linear", 0),
    "weight quantizer": ("conv1.weight_quantizer", 0),
}
KINDS = {
    "forward": nn.Module.register_forward_hook,
    "pre": nn.Module.register_forward_pre_hook,
    "backward": nn.Module.register_full_backward_hook,
    "backward pre": nn.Module.register_full_backward_pre_hook,
}


def each_hook():
    """Every module with every kind; in the ordinary run the kinds take turns, two to a module."""
    for (i, where), (j, kind) in itertools.product(enumerate(HOOKED), enumerate(KINDS)):
        marks = pytest.mark.slow if (i + j) % 2 else ()
        yield pytest.param(where, kind, id=f"{where}-{kind}", marks=marks)


@pytest.mark.parametrize(("where", "kind"), list(each_hook()))
def test_hooks_added_later_see_what_they_would(where, kind):
    fused, plain = pair()
    name, missing = HOOKED[where]
    seen: list[list[str]] = [[], []]
    handles = []
    for model, shapes in zip((fused, plain), seen, strict=True):

        def hook(module, *args, shapes=shapes):
            for arg in args:
                tensors = arg if isinstance(arg, tuple) else (arg,)
                shapes.extend(f"{type(x).__name__} {getattr(x, 'shape', '')}" for x in tensors)

        handles.append(KINDS[kind](model.get_submodule(name), hook))
    with OpCalls() as calls:
        assert_alike(fused, plain)
    assert seen[0] == seen[1]
    assert len(calls) == CHAINS - missing
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert len(told.fused) == CHAINS - missing
    assert missing == 0 or any("hooks on" in why for why in told.whole.values())
    for handle in handles:
        handle.remove()
    assert chains_run(fused) == CHAINS


def test_hooks_on_all_modules():
    fused, plain = pair()
    count = [0]

    def hook(module, args, out):
        count[0] += 1

    handle = nn.modules.module.register_module_forward_hook(hook)
    try:
        fused(images())
        ours, count[0] = count[0], 0
        plain(images())
    finally:
        handle.remove()
    assert ours == count[0] > 20
    assert chains_run(fused) == CHAINS


def test_hooks_from_before_keep_their_module_whole():
    torch.manual_seed(0)
    plain = quantized(SlimResNet())
    seen: list[str] = []
    for part in (plain.blocks[0], plain.blocks[1].bn2):
        part.register_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    fused = daqakd.fuse(plain)
    assert fusion_of(fused.blocks[0]) is not None, "what is inside is a root of its own"
    with OpCalls() as calls:
        step(fused)
    assert len(calls) == CHAINS - 1
    assert seen == ["BasicBlock", "BatchNorm2d"]
    step(plain)
    assert_alike(fused, plain)
    told = daqakd.summary(fused).fusion
    assert told is not None
    assert told.whole["blocks.0"] == "hooks on it, so that only what is inside is fused"
    assert told.whole["blocks.1.bn2"] == "hooks on it"
    assert "blocks.0.bn1" in told.fused
