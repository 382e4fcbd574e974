"""A state_dict of other bits is refused: its steps would be used on another grid."""

import copy
import io

import pytest
import torch
from torch.nn.parallel import DataParallel

import daqakd
from daqakd.quant.base import Quantizer

from ..helpers.small import SmallNet

IMAGES = torch.linspace(-2, 2, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
METHODS = ["lsq", "pact", "dorefa", "ewgs"]


def student(weight_bits=4, act_bits=4, **options):
    made = daqakd.quantize(SmallNet(), weight_bits=weight_bits, act_bits=act_bits, **options)
    daqakd.calibrate(made, [IMAGES])
    return made


def through_a_file(state):
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("widths", [(2, 4), (4, 2)])
@pytest.mark.parametrize("path", [copy.copy, through_a_file])
def test_another_width_is_named(method, widths, path):
    state = path(student(method=method).state_dict())
    other = student(*widths, method=method)
    part = "weight_quantizer" if widths[0] == 2 else "act_quantizer"
    said = f"conv2.{part} has 4 bits in the state_dict and 2 here; quantize with the same widths"
    with pytest.raises(RuntimeError, match=said):
        other.load_state_dict(state)
    with pytest.raises(RuntimeError, match=said):
        other.load_state_dict(state, strict=False)
    with pytest.raises(RuntimeError, match="conv2"):
        DataParallel(other).load_state_dict(DataParallel(student(method=method)).state_dict())


def test_the_same_width_and_plain_dictionaries_load():
    made = student()
    state = made.state_dict()
    for given in (state, through_a_file(state), dict(state)):
        other = student()
        other.load_state_dict(given)
        assert torch.equal(other(IMAGES), made(IMAGES))


def test_a_width_taken_later_counts():
    made, other = student(8, 8), student(8, 8)
    for one in (made, other):
        for module in one.modules():
            if isinstance(module, Quantizer) and module.uniform:
                module.set_bits(3)
    other.load_state_dict(made.state_dict())
    with pytest.raises(RuntimeError, match="has 3 bits in the state_dict and 8 here"):
        student(8, 8).load_state_dict(made.state_dict())
