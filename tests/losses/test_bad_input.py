"""What losses refuse: one sentence that says what was seen and what to do."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

import daqakd
from daqakd.augment import Batch
from daqakd.losses import CC, DIST, DKD, FT, LOSSES, NST, PKT, RKD, VID, FitNet, SQuaT
from daqakd.models import build

from ..helpers.losses import CLASSES, batch_of, maps, setup_of, small_models
from ..helpers.refusals import refused

LOGITS = (CLASSES,)
TEXT: Any = "4"
NOTHING: Any = None


def prepare(loss, student, teacher):
    return lambda: loss.prepare(setup_of(maps([student], 2), maps([teacher], 2)))


def other_rows(loss, shape):
    return lambda: loss.prepare(setup_of(maps([shape], 2), maps([shape], 4)))


def one_value(loss):
    pixel = maps([(3, 1, 1)], 1)
    loss.prepare(setup_of(pixel, pixel))
    loss(pixel, pixel, batch_of(1))


ROWS = {
    "dimensions": (prepare(NST(), (3,), (3,)), r"NST: .*expected 4 dimensions"),
    "features": (prepare(RKD(), (3, 2, 2), (3,)), r"RKD: .*expected 2 dimensions"),
    "rows of maps": (other_rows(FT(), (3, 2, 2)), r"FT: .* one row per image"),
    "rows": (other_rows(PKT(), (3,)), r"PKT: .*\[2, 3\] and the teacher's \[4, 3\]"),
    "classes": (prepare(DKD(), LOGITS, (7,)), r"DKD: .*\[2, 5\] and the teacher's \[2, 7\]"),
    "classes of dist": (prepare(DIST(), LOGITS, (7,)), r"DIST: .*expected one shape"),
    "one class": (prepare(DKD(), (1,), (1,)), r"DKD: one class has no others"),
    "sizes": (prepare(FitNet(), (3, 4, 4), (3, 6, 6)), r"FitNet: .*\[4, 4\] pixels .*\[6, 6\]"),
    "mixed sizes": (prepare(FitNet(), (3, 4, 8), (3, 8, 4)), r"FitNet: .*name taps that fit"),
    "one value": (partial(one_value, FitNet()), r"FitNet: its BatchNorm needs more than one"),
    "one value of ft": (partial(one_value, FT()), r"FT: its BatchNorm needs more than one"),
    "temperature": (partial(DKD, temperature=0.0), "temperature: expected a number above 0"),
    "nan": (partial(DIST, temperature=float("nan")), "temperature: expected a number above 0"),
    "text": (partial(DKD, temperature=TEXT), "temperature: expected a number above 0, got '4'"),
    "weight": (partial(DKD, alpha=-1.0), "alpha: expected a finite number from 0 on"),
    "weight of dist": (partial(DIST, gamma=NOTHING), "gamma: expected a finite number from 0 on"),
    "weight of rkd": (partial(RKD, angle_weight=-1.0), "angle_weight: expected a finite number"),
    "ratio": (partial(FT, ratio=1.5), "ratio: expected a number above 0, 1 at most, got 1.5"),
    "variance": (partial(VID, variance=0.0), "variance: expected a number above"),
    "dimensions of cc": (partial(CC, dimensions=0), "dimensions: expected an integer"),
}


@pytest.mark.parametrize("row", ROWS)
def test_is_refused(row):
    call, message = ROWS[row]
    refused(call, message)


@pytest.mark.parametrize("name", [n for n, kind in LOSSES.items() if not kind.takes_mixed_labels])
def test_mixed_images_are_refused(name):
    loss, logits, batch = LOSSES[name](), maps([LOGITS], 2), batch_of(2)
    mixed = Batch(batch.images, batch.labels, batch.index, batch.labels, torch.ones(2))
    refused(lambda: loss(logits, logits, mixed), "images mixed from two")


def test_squat_needs_a_quantized_convolution_and_a_teacher_that_has_it():
    student, teacher = small_models()
    find = SQuaT(taps=["1"]).taps_of
    refused(lambda: find(teacher, teacher), "'1' has no convolution whose input is quantized")
    refused(lambda: find(student, nn.Flatten()), "teacher has no convolution '1.0'")
    refused(lambda: SQuaT(taps=["9"]).taps_of(student, teacher), "has no module '9'")
    refused(lambda: SQuaT().taps_of(student, teacher), "has no known ones; name the modules")
    weights_only = daqakd.quantize(build("vgg8", 5), weight_bits=2, act_bits=None)
    refused(
        lambda: SQuaT().taps_of(weights_only, weights_only), "no convolution whose input is quant"
    )
    setup = setup_of(maps([(4, 6, 6)], 2), maps([(8, 6, 6)], 2), (student, teacher))
    refused(lambda: SQuaT(taps=["1"]).prepare(setup), r"SQuaT: .*expected one shape")
