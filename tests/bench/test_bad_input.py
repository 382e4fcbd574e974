"""Bad ops, sizes, dtypes and devices of a benchmark: one sentence each, and nothing is timed."""

# mypy: disable-error-code="var-annotated"

from typing import Any

import pytest

from daqakd.bench.run import bench

from ..helpers.refusals import Row, refused


def measure(**changes):
    some: dict[str, Any] = {"ops": ["lsq"], "sizes": [64], "dtypes": ["float32"], "rounds": 1}
    return bench(**{**some, "device": "cpu", **changes})


ROWS: list[Row] = [
    *(("unknown op", lambda o=o: measure(ops=[o])) for o in ("x", "", None, 3)),
    *(("unknown dtype", lambda d=d: measure(dtypes=[d])) for d in ("int8", "", None)),
    *(
        (f"{name}: expected at least one", lambda n=names: measure(**{n: []}))
        for name, names in (("op", "ops"), ("size", "sizes"), ("dtype", "dtypes"))
    ),
    *(
        ("size: expected an integer from 64", lambda s=s: measure(sizes=[s]))
        for s in (0, -1, 63, 64.5, "64", None, 2**62)
    ),
    *(
        ("turns: expected an integer from 1", lambda t=t: measure(rounds=t))
        for t in (0, "x", 2**40)
    ),
    *(("images: expected an integer from 1", lambda i=i: measure(num_images=i)) for i in (0, 1.5)),
    *(("device: expected a device", lambda d=d: measure(device=d)) for d in ("tpu", "", 1.5, [])),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call, capsys):
    refused(call, message)
    assert not capsys.readouterr().out
