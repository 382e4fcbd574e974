"""The GPU tests come in turns: every op's first test before any op's second."""

from pathlib import Path
from types import SimpleNamespace

from .conftest import in_turns, subject_of


def item(file, name, **parameters):
    call = {"callspec": SimpleNamespace(params=parameters)} if parameters else {}
    return SimpleNamespace(path=Path(file), name=name, **call)


def test_every_op_has_its_turn():
    tests = [item("test_gpu.py", f"a{i}", op="pact", backend="triton") for i in range(3)]
    tests += [item("test_gpu.py", f"b{i}", op="pact", backend="native") for i in range(2)]
    tests += [item("test_gpu_cmi.py", "c0", backend="native"), item("test_gpu_range.py", "d0")]
    names = [one.name for one in in_turns(tests)]
    assert names == ["b0", "c0", "a0", "d0", "b1", "a1", "a2"]


def test_the_op_is_a_parameter_or_the_file():
    assert subject_of(item("test_gpu.py", "", op="ewgs", backend="native")) == (0, "ewgs")
    assert subject_of(item("test_gpu_many.py", "", stem="lsq_many")) == (2, "lsq_many")
    assert subject_of(item("test_gpu_kd_loss.py", "", backend="triton")) == (1, "test_gpu_kd_loss")
