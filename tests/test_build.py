"""What setup.py decides, without building anything."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from daqakd.backends import native

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / "setup.py").exists(), reason="not the source folder")


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem + "_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def build(monkeypatch) -> ModuleType:
    monkeypatch.setattr(sys, "path", [*sys.path])
    return load(ROOT / "setup.py")


@pytest.fixture
def toolchain(build) -> ModuleType:
    """What the functions that ``setup.py`` imports look around with."""
    return sys.modules[build.compiler.__module__]


@pytest.fixture
def backend(build) -> ModuleType:
    return load(ROOT / "csrc/build_backend.py")


@pytest.fixture
def ninja_file() -> ModuleType:
    return load(ROOT / "csrc/ninja_file.py")


def program(path: Path, text: str = "exit 0") -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_stays_short_and_never_imports_torch(build):
    text = (ROOT / "setup.py").read_text()
    assert len(text.splitlines()) < 150
    assert "import torch" not in text
    assert "is_available" not in text
    code = "import sys, runpy; runpy.run_path('setup.py'); print('torch' in sys.modules)"
    command = [sys.executable, "-c", code]
    assert subprocess.check_output(command, cwd=ROOT, text=True).strip() == "False"


def test_finds_torch_and_its_versions(toolchain):
    found = toolchain.find_torch()
    assert found == Path(torch.__file__).parent
    version, cuda = toolchain.torch_facts(found)
    assert version == tuple(map(int, torch.__version__.split(".")[:2]))
    assert cuda == torch.version.cuda


def test_finds_torch_outside_an_isolated_build(toolchain, monkeypatch):
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    assert toolchain.find_torch() == Path(torch.__file__).parent


def test_none_builds_nothing(build):
    assert build.plan("none")[1:] == ([], "")


def test_an_unknown_choice_is_an_error(build):
    with pytest.raises(SystemExit, match="expected auto, none, cpu, cuda, sanitize, got 'gpu'"):
        build.plan("gpu")


def test_without_a_compiler_it_installs_and_says_how_to_build(build, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    why = "no C++ compiler on Linux was found; install g++"
    assert build.plan("auto")[1:] == ([], why)
    assert f"{why}, then: {build.REBUILD}" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="DAQAKD_BUILD=cpu is impossible: no C\\+\\+ compiler"):
        build.plan("cpu")


@pytest.fixture
def _without_torch(toolchain, monkeypatch):
    monkeypatch.setattr(toolchain.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(toolchain.subprocess, "check_output", lambda *_, **__: "\n")


@pytest.mark.usefixtures("_without_torch")
def test_without_torch_it_installs_and_says_how_to_build(build, capsys):
    assert build.plan("auto")[1:] == ([], "torch is not installed; install torch")
    assert f"install torch, then: {build.REBUILD}" in capsys.readouterr().out


def test_an_isolated_build_asks_for_no_torch_beside_one(backend):
    assert backend.torch_to_fetch() == []


@pytest.mark.usefixtures("_without_torch")
@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_an_isolated_build_asks_for_torch_where_there_is_none(backend, monkeypatch, kind):
    name = f"get_requires_for_build_{kind}"
    monkeypatch.setattr(backend.build_meta, name, lambda settings: [f"{kind} {settings}"])
    ask = getattr(backend, name)
    assert ask("x") == [f"{kind} x", "torch>=2.11"]
    assert '"torch>=2.11",' in (ROOT / "pyproject.toml").read_text()
    monkeypatch.setenv("DAQAKD_BUILD", "none")
    assert ask() == [f"{kind} None"]
    monkeypatch.delenv("DAQAKD_BUILD")
    monkeypatch.setenv("PATH", "/nonexistent")  # no compiler
    assert ask() == [f"{kind} None"]


def test_an_isolated_build_asks_for_a_newer_torch_than_an_old_one(backend, toolchain, monkeypatch):
    monkeypatch.setattr(toolchain, "torch_facts", lambda folder: ((2, 10), None))
    assert backend.torch_to_fetch() == ["torch>=2.11"]


def test_what_was_built_is_noted_beside_the_modules(build, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "WANTED", "auto")
    monkeypatch.setattr(build, "WHY", "no compiler")
    build.note(tmp_path / "new")
    note = json.loads((tmp_path / "new" / native.NOTE).read_text())
    assert note == {"DAQAKD_BUILD": "auto", "left_out": "no compiler"}
    assert note.keys() == native._note().keys()


def torch_with_cuda(folder: Path) -> Path:
    (folder / "lib").mkdir()
    (folder / "lib/libtorch_cuda.so").touch()
    return folder


def test_the_toolkit_is_asked_of_a_wrapped_nvcc(toolchain, monkeypatch, tmp_path):
    said = f"echo '#$ TOP={tmp_path}/toolkit/bin/..' >&2; echo '#$ -D__CUDACC_VER_MAJOR__=13' >&2"
    program(tmp_path / "nvcc", said)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.delenv("CUDA_HOME", raising=False)
    nvcc, root = toolchain.toolkit(torch_with_cuda(tmp_path), "13.0")
    assert (nvcc, root) == (str(tmp_path / "nvcc"), tmp_path / "toolkit")
    with pytest.raises(toolchain.Impossible, match=r"nvcc is not of CUDA 12\.8"):
        toolchain.toolkit(tmp_path, "12.8")


def test_a_torch_without_cuda_gets_no_cuda_library(toolchain, tmp_path):
    with pytest.raises(toolchain.Impossible, match="torch is built without CUDA"):
        toolchain.toolkit(tmp_path, None)


def test_architectures(ninja_file):
    options = ninja_file.gencode("8.0;9.0+PTX").split()
    assert [option.rsplit("=", 1)[1] for option in options] == ["sm_80", "sm_90", "compute_90"]
    assert ninja_file.gencode("9.0a") == "-gencode=arch=compute_90a,code=sm_90a"


def test_kernel_facts_are_read_from_ptxas(ninja_file, tmp_path):
    (tmp_path / "x.log").write_text(
        "ptxas info    : Compiling entry function '_Z1kPf' for 'sm_90'\n"
        "ptxas info    : Function properties for _Z1kPf\n"
        "    8 bytes stack frame, 4 bytes spill stores, 12 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 128 bytes smem\n"
    )
    assert ninja_file.kernel_facts([tmp_path / "x.log"]) == ["_Z1kPf 90 40 128 16"]
