from contextlib import nullcontext
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import torch

from daqakd import _ops
from daqakd._errors import InputError
from daqakd.backends import (
    can_run,
    choose,
    forced_backend,
    native,
    select,
    table,
    use_backend,
)
from daqakd.functional import lsq

X = torch.zeros(3)
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _nothing_forced(monkeypatch):
    monkeypatch.setattr(select, "_forced", None)


@pytest.fixture
def _no_other_backend(monkeypatch):
    """Take every backend but the reference away, each with its reason."""
    for name in ("native", "triton"):
        monkeypatch.setitem(select.RUNNERS, name, lambda *_: "it was taken away")


@pytest.mark.parametrize("op", _ops.STEMS)
@pytest.mark.parametrize("device", ["cpu", "cuda", "meta"])
def test_the_reference_runs_everything(op, device):
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.float16):
        assert can_run(op, "reference", device, dtype) is None


@pytest.mark.parametrize("backend", ["triton", "native"])
def test_a_refusal_gives_its_reason(backend):
    reason = can_run("no_such_op", backend, "cpu", torch.float32)
    assert "no_such_op" in reason


@pytest.mark.skipif(native.FAILURES["cpu"] is not None, reason="installed without _C.so")
@pytest.mark.parametrize("op", _ops.STEMS)
def test_the_dispatcher_says_what_the_libraries_run(op, monkeypatch):
    dtype = _ops.INPUT_DTYPES.get(op, (torch.float32,))[0]
    assert can_run(op, "native", "cpu", dtype) is None
    assert _ops.implemented("native", "xpu") == frozenset()
    monkeypatch.setitem(native.IMPLEMENTED, "cpu", frozenset())
    assert op in can_run(op, "native", "cpu", dtype)


def test_triton_refuses_the_cpu():
    assert can_run("lsq", "triton", "cpu", torch.float32)


@pytest.mark.parametrize("op", _ops.STEMS)
def test_the_choice_can_run(op):
    assert can_run(op, choose(op, X), "cpu", X.dtype) is None


@pytest.mark.usefixtures("_no_other_backend")
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_the_reference_is_the_last_resort(device):
    assert choose("lsq", X.to(device)) == "reference"


def test_the_first_of_the_preference_is_chosen(monkeypatch):
    monkeypatch.setitem(select.RUNNERS, "native", lambda *_: None)
    assert choose("lsq", X) == "native"
    assert choose("lsq", X, "reference") == "reference"


def test_the_preference_of_a_device_names_backends():
    for rows in table.PREFERENCES.values():
        assert rows[-1].op is rows[-1].dtype is rows[-1].below is None, "the last covers the rest"
        for row in rows:
            assert set(row.order) <= set(_ops.BACKENDS)
            assert row.order[-1] == "reference"


def test_every_row_names_a_result_that_exists():
    sources = [row.source for rows in table.PREFERENCES.values() for row in rows]
    sources += [source for _, source in table.TOGETHER_BELOW.values()]
    sources += [source for ops in table.INLINED.values() for source in ops.values()]
    for source in sources:
        assert source == table.NOT_MEASURED or (ROOT / source).exists(), source


def test_the_first_row_that_covers_a_call_decides(monkeypatch):
    small = table.Preference(("reference",), "", op="lsq", dtype=torch.float32, below=10)
    monkeypatch.setitem(table.PREFERENCES, "cpu", (small, *table.PREFERENCES["cpu"]))
    monkeypatch.setitem(select.RUNNERS, "native", lambda *_: None)
    assert choose("lsq", torch.ones(9)) == "reference"
    assert choose("lsq", torch.ones(10)) == "native"
    assert choose("lsq", torch.ones(9).double()) == "native"
    assert choose("pact", torch.ones(9)) == "native"


def test_a_choice_is_made_once(monkeypatch):
    asked = []
    monkeypatch.setitem(select.RUNNERS, "native", lambda *what: asked.append(what))
    for x in (X, X.bfloat16(), X, torch.zeros(5)):
        assert choose("lsq", x) == "native"
    assert asked == [("lsq", "cpu", torch.float32), ("lsq", "cpu", torch.bfloat16)]
    with use_backend("reference"):
        assert choose("lsq", X) == "reference"
    monkeypatch.setitem(select.RUNNERS, "native", lambda *_: "it was taken away")
    assert choose("lsq", X) == "reference"
    monkeypatch.setitem(table.PREFERENCES, "cpu", (table.Preference(("triton",), ""),))
    monkeypatch.setitem(select.RUNNERS, "triton", lambda *_: None)
    assert choose("lsq", X) == "triton"


@pytest.mark.usefixtures("_no_other_backend")
@pytest.mark.parametrize("backend", ["triton", "native"])
def test_forced_and_impossible_says_why(backend):
    wanted = rf"backend '{backend}' was asked for but cannot run 'lsq': it was taken away"
    with pytest.raises(InputError, match=wanted):
        choose("lsq", X, backend)
    with use_backend(backend), pytest.raises(InputError, match=wanted):
        lsq(X, torch.tensor(1.0), bits=2, signed=True)


def test_an_unknown_name_is_an_error_with_a_suggestion():
    with pytest.raises(InputError, match=r"'nativ'.*Did you mean 'native'\?"):
        choose("lsq", X, "nativ")
    with pytest.raises(InputError, match=r"use_backend\(\) 'nativ'"), use_backend("nativ"):
        pass


def test_use_backend_ends_with_its_block():
    with use_backend("reference"):
        assert forced_backend() == "reference"
        with use_backend(None):
            assert forced_backend() is None
        assert forced_backend() == "reference"
    assert forced_backend() is None


def test_use_backend_ends_with_an_error():
    with pytest.raises(KeyError), use_backend("reference"):
        raise KeyError
    assert forced_backend() is None


def test_an_argument_wins_over_the_block(monkeypatch):
    monkeypatch.setitem(select.RUNNERS, "native", lambda *_: None)
    with use_backend("native"):
        assert choose("lsq", X) == "native"
        assert choose("lsq", X, "reference") == "reference"


@pytest.mark.parametrize(
    ("value", "forced", "error"),
    [
        ("reference", "reference", ""),
        ("", None, ""),
        (
            "refrence",
            None,
            "unknown backend in DAQAKD_BACKEND 'refrence'. Did you mean 'reference'",
        ),
    ],
)
def test_environment_variable(value, forced, error, monkeypatch):
    monkeypatch.setenv("DAQAKD_BACKEND", value)
    spec = spec_from_file_location("daqakd.backends.select_anew", select.__file__)
    anew = module_from_spec(spec)
    with pytest.raises(InputError, match=error) if error else nullcontext():
        spec.loader.exec_module(anew)
        assert anew.forced_backend() == forced
