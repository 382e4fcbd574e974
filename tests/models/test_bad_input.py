"""Bad names of models and numbers of classes: one sentence each."""

# mypy: disable-error-code="var-annotated"

import pytest

from daqakd.models import build

from ..helpers.refusals import Row, refused

BUILDERS = "tests.helpers.builders"
ROWS: list[Row] = [
    *(
        ("model: expected a name or package", lambda n=n: build(n, 3))
        for n in (None, 3, [], b"resnet20", build)
    ),
    *(("unknown model", lambda n=n: build(n, 3)) for n in ("", "resnet", "resnet20 ", "RESNET20")),
    *(("cannot be imported", lambda n=n: build(n, 3)) for n in (":", "a:b:c", "os:", ":x", "os:x")),
    ("path is not callable", lambda: build("os:path", 3)),
    *(
        (f"{name}.*failed with", lambda n=name: build(f"{BUILDERS}:{n}", 3))
        for name in ("fails", "other_argument")
    ),
    ("returned a int", lambda: build(f"{BUILDERS}:number", 3)),
    ("is lazy", lambda: build(f"{BUILDERS}:lazy", 3)),
    *(
        ("num_classes: expected an integer from 1 to", lambda c=c: build("resnet20", c))
        for c in (0, -1, "3", 2.5, None, True, float("nan"), 2**70, [3])
    ),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)
