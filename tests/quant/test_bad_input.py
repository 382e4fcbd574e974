"""Bad input to quantize, calibrate, summary, dequantize and param_groups: one sentence each."""

# mypy: disable-error-code="var-annotated"

import math

import numpy as np
import pytest
import torch

import daqakd

from ..helpers.refusals import Row, refused
from ..helpers.small import SmallNet

INF, NAN, HUGE = math.inf, math.nan, 10**400
X = torch.randn(4, 3, 16, 16)
NO_MODELS = (None, "resnet20", SmallNet, {}, 3)


def quantize(**options):
    return daqakd.quantize(SmallNet(), **{"weight_bits": 2, "act_bits": 2, **options})


def calibrate(batches):
    return daqakd.calibrate(quantize(), batches)


def groups(lr=0.1, decay=0.0, quantizer_lr=None):
    return daqakd.param_groups(quantize(), lr, decay, quantizer_lr)


def bits(value):
    return lambda: quantize(act_bits=value)


NO_OVERRIDES = (3, "fc", ["fc"], {"fc": 3}, {3: {}}, {"fc": None})
NO_ALPHAS = (0, -1, NAN, INF, "x", True, [1], 1e40, HUGE, X, torch.tensor(NAN), 1j)
ROWS: list[Row] = [
    *(
        ("model: expected", lambda m=m: daqakd.quantize(m, weight_bits=2, act_bits=2))
        for m in (*NO_MODELS, X)
    ),
    ("model: has no layer to quantize", lambda: quantize(exclude="*")),
    *(
        (r"exclude: expected names or globs", lambda e=e: quantize(exclude=e))
        for e in (None, 3, [3], [None], b"fc")
    ),
    *(
        ("exclude: .*matches no layer that can be", lambda e=e: quantize(exclude=e))
        for e in ("nope", ["fc", ""], np.array(["fc2"]))
    ),
    *(("overrides: expected", lambda o=o: quantize(overrides=o)) for o in NO_OVERRIDES),
    ("overrides: 'nope' matches no", lambda: quantize(overrides={"nope": {}})),
    *(
        ("unknown key in overrides", lambda k=k: quantize(overrides={"fc": {k: 3}}))
        for k in ("bits", 1, None)
    ),
    (
        r"weight_bits \(overrides\['fc'\]\): expected an integer from 1 to 8, got 99",
        lambda: quantize(overrides={"fc": {"weight_bits": 99}}),
    ),
    (r"unknown act_method \(overrides", lambda: quantize(overrides={"fc": {"act_method": "x"}})),
    (r"per_channel \(overrides", lambda: quantize(overrides={"fc": {"per_channel": 1}})),
    *(
        (r"^act_bits: expected an integer from 1 to 8, got", bits(b))
        for b in (0, -1, 9, NAN, INF, "2", [2], 2.0, True, np.int64(2), torch.tensor(2))
    ),
    ("got an integer of 1329 bits", bits(HUGE)),
    *(("method: expected one of", lambda m=m: quantize(method=m)) for m in (None, 3, ["lsq"], {})),
    *(("unknown method", lambda m=m: quantize(method=m)) for m in ("", "LSQ2", "lsq ")),
    *(
        ("pact_alpha: expected a number above 0", lambda a=a: quantize(method="pact", pact_alpha=a))
        for a in NO_ALPHAS
    ),
    *(
        ("delta: expected a finite number", lambda d=d: quantize(method="ewgs", delta=d))
        for d in (None, NAN, INF, "x", 1e40, HUGE, torch.tensor(NAN), X)
    ),
    *(
        ("student: expected a torch.nn.Module", lambda f=f, m=m: f(m))
        for f in (daqakd.summary, daqakd.dequantize, lambda m: daqakd.calibrate(m, X))
        for m in NO_MODELS
    ),
    *(("student: expected", lambda m=m: daqakd.param_groups(m, 0.1, 0.0)) for m in (None, "x")),
    *(
        ("batches: expected", lambda b=b: calibrate(b))
        for b in (None, 3, "x", b"x", [None], [3], [[]], X.numpy(), object(), SmallNet())
    ),
    *(("batches: empty", lambda b=b: calibrate(b)) for b in ([], iter([]), ())),
    *(
        ("batches: batch 0 .* holds no values", lambda b=b: calibrate(b))
        for b in (X[:0], X[..., :0])
    ),
    *(("batches: a dictionary of", lambda b=b: calibrate(b)) for b in ({"y": X}, {})),
    *(
        ("batches: the model's forward pass fails on them .*dtype", lambda b=b: calibrate(b))
        for b in (X.double(), X.int(), X[:, :1], X[0], X.to("meta"))
    ),
    *(
        (r"batches: batch \d .*NaN or infinite", lambda b=b: calibrate(b))
        for b in (X * NAN, [X, X / 0])
    ),
    *(
        ("lr: expected a finite number from 0 on", lambda v=v: groups(lr=v))
        for v in (None, "x", -1.0, NAN, INF, True, [0.1], X)
    ),
    *(("weight_decay: expected", lambda v=v: groups(decay=v)) for v in (None, "x", -1.0, NAN)),
    *(("quantizer_lr: expected", lambda v=v: groups(quantizer_lr=v)) for v in ("x", -1.0, INF)),
    ("conv1.act_quantizer: forward pass before calibration", lambda: quantize()(X)),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)


def test_numbers_of_any_kind_are_rates():
    for rate in (0, 1, np.float32(0.1), torch.tensor(0.1)):
        groups(lr=rate, quantizer_lr=rate)
