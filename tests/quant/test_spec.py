"""The options of quantization: declared once, and every value that cannot be meant is found."""

import inspect
from dataclasses import fields

import numpy as np
import pytest
import torch

import daqakd
from daqakd import InputError
from daqakd.quant import LayerSpec
from daqakd.quant.spec import Width

from ..helpers.refusals import refused
from ..helpers.small import SmallNet


def test_quantize_has_every_option_with_its_default():
    arguments = inspect.signature(daqakd.quantize).parameters
    for field in fields(LayerSpec):
        width = field.name in ("weight_bits", "act_bits")
        wanted = ("bits", Width) if width else (field.default, field.type)
        own = arguments[field.name]
        assert (own.default, own.annotation) == wanted, field.name


@pytest.mark.parametrize(
    ("method", "weights", "activations"),
    [("lsq", "lsq", "lsq"), ("pact", "dorefa", "pact"), ("dorefa", "dorefa", "dorefa")],
)
def test_a_method_names_a_pair_of_quantizers(method, weights, activations):
    spec = LayerSpec(method=method)
    spec.check()
    assert (spec.weights_by, spec.activations_by) == (weights, activations)
    assert LayerSpec(method=method, weight_method="ewgs").weights_by == "ewgs"
    assert LayerSpec(method=method, act_method="ewgs").activations_by == "ewgs"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 9}, "^weight_bits: .*integer from 1 to 8, got 9"),
        ({"weight_bits": True}, "^weight_bits: .*got True"),
        ({"act_bits": 2.0}, r"^act_bits: .*got 2\.0"),
        ({"act_bits": "2"}, "^act_bits: .*got '2'"),
        ({"weight_bits": 1}, "^weight_bits: 1 bit has no positive code for LSQ's signed weights"),
        ({"method": "lsqq"}, "^unknown method 'lsqq'.*Did you mean 'lsq'"),
        (
            {"method": None},
            "^method: expected one of lsq, lsqplus, pact, dorefa, ewgs, seq, got None",
        ),
        ({"method": ["lsq"]}, "^method: expected one of"),
        ({"weight_method": "pact"}, "^unknown weight_method 'pact'"),
        ({"act_method": 3}, "^act_method: expected one of dorefa, ewgs, lsq, lsqplus, pact, got 3"),
        ({"per_channel": "no"}, "^per_channel: expected True or False, got 'no'"),
        ({"first_last": "8"}, "^unknown first_last '8'"),
        ({"first_last": 8}, "^first_last: expected one of 8bit, fp, same, got 8"),
        ({"rescale": "on"}, "^unknown rescale 'on'"),
        ({"rescale": False}, "^rescale: expected one of auto, off, got False"),
        ({"save": "code"}, "^unknown save 'code'.*Did you mean 'codes'"),
        ({"save": True}, "^save: expected one of values, codes, got True"),
        ({"pact_alpha": 0.0}, r"^pact_alpha: expected a number above 0.*got 0\.0"),
        ({"pact_alpha": float("inf")}, "^pact_alpha: expected"),
        ({"pact_alpha": "6"}, "^pact_alpha: expected"),
        ({"delta": None}, "^delta: expected a finite number, or .hessian., got None"),
        ({"delta": float("nan")}, "^delta: expected"),
        ({"delta": True}, "^delta: expected"),
    ],
    ids=str,
)
def test_what_cannot_be_meant_is_found(options, message):
    refused(LayerSpec(**options).check, message)
    every = {"weight_bits": 2, "act_bits": 2, **options}
    refused(lambda: daqakd.quantize(torch.nn.Identity(), **every), message)


def test_an_override_is_checked_with_the_layer_it_changes():
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    options = {"weight_bits": 1, "act_bits": None, "method": "dorefa"}
    overrides = {"2": {"weight_method": "lsq"}}  # the last layer has 8 bits
    daqakd.quantize(model, overrides=overrides, **options)
    with pytest.raises(InputError, match=r"^weight_bits \(overrides\['1'\]\): 1 bit"):
        daqakd.quantize(model, overrides={"1": {"weight_method": "lsq"}}, **options)


@pytest.mark.parametrize(("weight", "act"), [(32, 4), (None, 4), (4, 32), (4, None)])
@pytest.mark.parametrize("first_last", ["8bit", "fp", "same"])
def test_32_bits_are_full_precision_in_every_layer(weight, act, first_last):
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    options = {"weight_bits": weight, "act_bits": act, "first_last": first_last}
    layers = daqakd.summary(daqakd.quantize(model, **options)).layers
    full = {(w, a) for w, a in ((row.weight_bits, row.act_bits) for row in layers)}
    inner = (4, 32) if act in (32, None) else (32, 4)
    outer = tuple({"8bit": 8, "fp": 32, "same": 4}[first_last] if b == 4 else 32 for b in inner)
    assert full == {inner, outer}


def test_32_bits_in_an_override():
    model = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(3)))
    student = daqakd.quantize(model, weight_bits=4, act_bits=4, overrides={"1": {"act_bits": 32}})
    assert daqakd.summary(student).layers[1].act_bits == 32
    with pytest.raises(InputError, match=r"no layer to quantize: .* or widths"):
        daqakd.quantize(model, weight_bits=32, act_bits=32)


def test_a_recipe_in_short():
    assert LayerSpec(weight_bits=2, act_bits=4).short == "W2A4 lsq"
    assert LayerSpec(weight_bits=32, act_bits=4, method="pact").short == "W32A4 pact"
    assert LayerSpec(weight_method="dorefa").short == "W2A2 dorefa, lsq"
    assert LayerSpec(method="pact", weight_method="ewgs", act_method="ewgs").short == "W2A2 ewgs"


def test_numbers_of_any_kind():
    LayerSpec(delta=0, pact_alpha=np.float32(6)).check()
    LayerSpec(delta=torch.tensor(0.1)).check()


def widths(student):
    row = daqakd.summary(student).layers[1]
    return row.weight_bits, row.act_bits, row.method


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, (4, 4, "lsq/lsq")),
        ({"bits": 2}, (2, 2, "lsq/lsq")),
        ({"bits": 3, "act_bits": 8}, (3, 8, "lsq/lsq")),
        ({"bits": 3, "weight_bits": 8}, (8, 3, "lsq/lsq")),
        ({"bits": 2, "act_bits": None}, (2, 32, "lsq/fp")),
        ({"weight_bits": 2, "act_bits": 3, "method": "PACT"}, (2, 3, "dorefa/pact")),
        ({"bits": 4, "method": "DoReFa"}, (4, 4, "dorefa/dorefa")),
        ({"bits": 4, "weight_method": "LSQ", "act_method": "EWGS"}, (4, 4, "lsq/ewgs")),
    ],
)
def test_first_guesses(options, wanted):
    assert widths(daqakd.quantize(SmallNet(), **options)) == wanted


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 2}, "act_bits: has no value beside weight_bits=2; pass act_bits="),
        ({"act_bits": None}, "weight_bits: has no value beside act_bits=None"),
        ({"bits": 9}, "weight_bits: expected .* 1 to 8, got 9"),
        ({"bits": "4"}, "weight_bits: expected"),
    ],
)
def test_widths_that_are_no_guess(options, message):
    refused(lambda: daqakd.quantize(SmallNet(), **options), message)
