"""Bad run directories and places of a report: one sentence each."""

# mypy: disable-error-code="var-annotated"

import pytest

from daqakd.report import report

from ..helpers.refusals import Row, refused

ROWS: list[Row] = [
    *(
        ("folders: expected a list of run directories", lambda f=f: report(f))
        for f in (None, 3, [], (), {}, "runs/x", iter(["x"]))
    ),
    *(("folders: expected a path", lambda f=f: report([f])) for f in (None, 3, "", "\0", b"x", [])),
    *(
        (r"config.toml: cannot be read .*is this a run directory\?", lambda f=f: report([f]))
        for f in ("nope", "/dev/null", "/")
    ),
]


@pytest.mark.parametrize(("message", "call"), ROWS)
def test_what_cannot_be_meant_is_one_sentence(message, call):
    refused(call, message)
