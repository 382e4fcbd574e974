"""Bad names of strategies, settings of inputs, and backends: one sentence each."""

# mypy: disable-error-code="var-annotated"

import math

import pytest

from daqakd import InputSpec, ResizedCrop, register_strategy, use_backend
from daqakd.augment import get_strategy

from ..helpers.refusals import Row, refused

INF, NAN, HUGE = math.inf, math.nan, 10**400


def crop(name, *values):
    return [(f"^{name}: expected", lambda v=v: ResizedCrop(**{name: v})) for v in values]


def spec(name, *values):
    return [(f"^{name}: expected", lambda v=v: InputSpec(**{name: v})) for v in values]


ROWS: list[Row] = [
    *crop("size", 0, -1, "8", 1.5, (8, 8), True, None, 2**16, 2**70),
    *crop("scale", 0.5, (0, 1), (0.5, 0.1), (NAN, 1), (0.1, 2), "ab", None, (HUGE, 1), (1j, 1)),
    *crop("ratio", (0, 1), (1, INF), (2, 1), 1, (NAN, NAN), (1,), (1, HUGE)),
    *crop("jitter", (1, 1, 1, 1), (-1, 0, 0, 0), 0.5, (NAN, 0, 0, 0), "abcd", (0, 0, 0)),
    *spec("mean", 0.5, "abc", (1, 2), (1, 2, 3, 4), (1j, 0, 0), (INF, 0, 0), (1e300, 0, 0)),
    *spec("mean", None, (HUGE, 0, 0), [None] * 3),
    *spec("std", (0, 1, 1), (-1, 1, 1), (NAN, 1, 1), (1e-300,) * 3, (1e300,) * 3, 1),
    *spec("pipeline", "x", 224, ResizedCrop, {}),
    *(("unknown semantics", lambda s=s: InputSpec(semantics=s)) for s in (None, [], "PIL", 3)),
    ("unknown option 'means'.*Did you mean 'mean'", lambda: InputSpec().with_changes(means=0)),
    *(("strategy: expected a name", lambda n=n: get_strategy(n)) for n in (None, 3, [], b"x")),
    *(("unknown strategy", lambda n=n: get_strategy(n)) for n in ("", "x", "auto", "+cutmix")),
    *(("unknown operation", lambda n=n: get_strategy(n)) for n in ("+", "@", "x@1", "rotate@1+")),
    *(
        (r"rotate needs a magnitude of 0 to 30", lambda m=m: get_strategy(f"rotate{m}"))
        for m in ("", "@", "@99", "@-1", "@1.5", "@nan", "@" + "9" * 5000)
    ),
    ("equalize has no magnitude", lambda: get_strategy("equalize@3")),
    ("at most 3 operations", lambda: get_strategy("+".join(["rotate@1"] * 4))),
    *(
        ("mixes images already", lambda n=n: get_strategy(n))
        for n in ("cutmix+cutmix", "mixup+cutmix")
    ),
    *(("name: expected a string", lambda n=n: register_strategy(n, abs)) for n in (None, 3, b"x")),
    *(
        ("name: .*taken or not allowed", lambda n=n: register_strategy(n, abs))
        for n in ("", "a+b", "a@b", "minimal", "auto", "rotate")
    ),
    *(
        ("transform: expected a callable", lambda t=t: register_strategy("new one", t))
        for t in (None, 3, "crop")
    ),
    *(
        (r"unknown backend in use_backend\(\)", lambda b=b: use_backend(b).__enter__())
        for b in ("x", "cuda", "", 3, [], b"native")
    ),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)
