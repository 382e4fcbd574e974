"""Who is timed: other libraries where they are installed, and functions of one's own."""

import json
import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch

import daqakd
from benchmarks.own_provider import my_lsq
from daqakd.bench import measure, peers, providers, roofline
from daqakd.bench.measure import with_convention
from daqakd.bench.registry import find
from daqakd.cli.main import main

EXAMPLE = "benchmarks.own_provider:providers"
LSQ = find("lsq")


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(measure, "ROUND_SECONDS", 0.0)
    monkeypatch.setattr(measure, "ROTATION_BYTES", 2**14)
    monkeypatch.setattr(roofline, "copy_speed", lambda device: 1e9)
    monkeypatch.setattr(type(LSQ), "providers", lambda op, device: {"eager": LSQ.eager})
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    monkeypatch.setattr(providers, "entry_points", lambda group: ())


def bench(tmp_path, *arguments):
    small = ["--op", "lsq", "--size", "64", "--dtype", "float32", "--turns", "1"]
    code = main(["bench", *small, "--out", str(tmp_path), "--device", "cpu", *arguments])
    return code, tmp_path / "bench.json"


@pytest.fixture
def own(monkeypatch):
    """Return what makes a function importable as ``own_module:function``."""

    def make(function):
        module = ModuleType("own_module")
        module.function = function
        monkeypatch.setitem(sys.modules, "own_module", module)
        return "own_module:function"

    return make


def test_the_example_is_timed_beside_the_others(tmp_path):
    code, path = bench(tmp_path, "--provider", EXAMPLE)
    assert code == 0
    rows = json.loads(path.read_text())["rows"]
    names = [row["provider"] for row in rows if row["form"] == "channel"]
    assert names == ["eager", "mine"]
    assert all(row["seconds"] > 0 for row in rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("form", LSQ.forms)
def test_the_example_is_right(form, dtype):
    case = LSQ.case(1024, dtype, form, "cpu")
    assert measure.problem(case, case.bind(my_lsq)) is None


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda op, device: {"eager": my_lsq}, "lsq has a provider 'eager' already; use another"),
        (lambda op, device: [my_lsq], r"returned \[<function my_lsq>\] for 'lsq'; it gets"),
        (lambda op, device: {"mine": 1}, "returned {'mine': 1} for 'lsq'; it gets"),
        (lambda op, device: {}, "has none for lsq; name its ops by --op"),
        (lambda op, device: {}[op], "raises KeyError: 'lsq' for 'lsq'; it gets"),
    ],
)
def test_wrong_functions_are_told_before_anything_is_timed(function, message, own):
    with pytest.raises(daqakd.InputError, match=message):
        providers.check(providers.named([own(function)]), ["lsq"], "cpu")


def test_what_cannot_be_imported_is_one_sentence(tmp_path, capsys):
    assert bench(tmp_path, "--provider", "no_such_module:function")[0] == 2
    error = capsys.readouterr().err
    assert "provider 'no_such_module:function': cannot be imported" in error
    assert error.count("\n") == 1


def test_functions_of_installed_packages_are_found(monkeypatch, tmp_path, capsys):
    points = [
        EntryPoint("mine", EXAMPLE, providers.GROUP),
        EntryPoint("broken", "no_such_module:f", providers.GROUP),
    ]
    monkeypatch.setattr(providers, "entry_points", lambda group: points)
    record = json.loads(bench(tmp_path)[1].read_text())
    assert {row["provider"] for row in record["rows"]} == {"eager", "mine"}
    assert record["skipped"]["broken"].startswith("ModuleNotFoundError")
    assert "skipped: broken (ModuleNotFoundError" in capsys.readouterr().out


def test_libraries_that_are_missing_are_named_with_the_reason(monkeypatch):
    found = providers.skipped(["lsq", "kd_loss", "codes"], "cpu")
    assert found["brevitas"] == "not installed; pip install brevitas"
    assert set(found) == {peer.adapter for peer in peers.PEERS}
    assert providers.skipped(["codes"], "cpu") == {}
    monkeypatch.setattr(peers, "find_spec", lambda name: object())
    assert providers.skipped(["lsq", "kd_loss"], "cpu") == {"liger": "needs a GPU"}
    assert providers.skipped(["lsq", "kd_loss"], "cuda") == {}
    assert {"brevitas", "torchao", "nncf"} <= providers.providers_of(LSQ, "cpu").keys()
    assert set(peers.providers_of("kd_loss", "cuda")) == {"liger", "liger-jsd"}


def test_a_library_that_does_not_work_is_a_note(monkeypatch):
    monkeypatch.setitem(sys.modules, "brevitas", None)  # as if its import failed
    peers.PEERS[0].load()._quantizer.cache_clear()
    case = LSQ.case(64, torch.float32, "tensor", "cpu")
    (row,) = measure.compare(case, peers.PEERS[0].load().providers("lsq", "cpu"), rounds=1)
    assert row.seconds is None
    assert row.note.startswith("ModuleNotFoundError")
    assert row.convention


@pytest.mark.filterwarnings("ignore")  # of other libraries
@pytest.mark.parametrize("adapter", ["brevitas", "torchao", "nncf"])
@pytest.mark.parametrize("form", LSQ.forms)
def test_installed_libraries_are_right(adapter, form):
    pytest.importorskip(adapter, exc_type=ImportError)
    (peer,) = (peer for peer in peers.PEERS if peer.adapter == adapter)
    case = LSQ.case(1024, torch.float32, form, "cpu")
    (provider,) = peer.load().providers("lsq", "cpu").values()
    assert measure.problem(case, case.bind(provider), provider.excused) is None


def test_a_convention_excuses_gradients_and_not_values():
    case = LSQ.case(1024, torch.float32, "tensor", "cpu")
    wrong = "its input gradient is wrong"

    @with_convention("the gradient passes everywhere", wrong)
    def passes(x, step, form):
        return x + (my_lsq(x, step, form) - x).detach() + 0 * step.sum()

    @with_convention("is off", wrong)
    def off(x, step, form):
        return 1.5 * my_lsq(x, step, form)

    plain = lambda *inputs: passes(*inputs)  # noqa: E731
    rows = measure.compare(case, {"passes": passes, "off": off, "plain": plain}, rounds=1)
    assert [row.note for row in rows] == ["", "its values are wrong", wrong]
    conventions = ["the gradient passes everywhere", "is off", ""]
    assert [row.record()["convention"] for row in rows] == conventions
