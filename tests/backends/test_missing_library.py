"""An install without its libraries says so where its user sees it, and only where it helps."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daqakd.backends import native

ROOT = Path(__file__).parents[2]
WHY = "no C++ compiler on Linux was found; install g++"
COMMAND = "pip install --force-reinstall --no-deps ."
CODE = """
import sys, warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import daqakd
    assert "torch" not in sys.modules
    daqakd.quantize, daqakd.rank, daqakd.functional
    from daqakd.cli.main import main
print(*(w.message for w in seen if w.category is RuntimeWarning), sep="\\n")
import torch
assert not torch.cuda.is_initialized()
sys.exit(main(["doctor"]))
"""


@pytest.fixture
def package(tmp_path) -> Path:
    """The package without what was compiled."""
    compiled = shutil.ignore_patterns("*.so", native.NOTE, "__pycache__")
    shutil.copytree(ROOT / "daqakd", tmp_path / "daqakd", ignore=compiled)
    return tmp_path / "daqakd"


def note(folder: Path, choice: str, why: str = "") -> None:
    (folder / native.NOTE).write_text(json.dumps({"DAQAKD_BUILD": choice, "left_out": why}))


def used(package: Path, compiler: bool) -> tuple[str, str]:
    """Use the package in a process of its own; return what it warns of, and what doctor says."""
    programs = package.parent / "programs"
    programs.mkdir(exist_ok=True)
    if compiler:
        (programs / "g++").write_text("#!/bin/sh\n")
        (programs / "g++").chmod(0o755)
    variables = {**os.environ, "PATH": str(programs), "PYTHONPATH": str(package.parent)}
    variables.pop("CXX", None)
    command = [sys.executable, "-P", "-c", CODE]
    done = subprocess.run(
        command, env=variables, cwd=package.parent, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    warned, _, told = done.stdout.partition("\n")
    return warned, told


def test_a_compiler_that_was_not_used(package):
    note(package, "auto", WHY)
    warned, told = used(package, compiler=True)
    assert f"installed without _C.so: {WHY}; to build it: {COMMAND}" in warned
    assert "DAQAKD_BUILD=none leaves it so" in warned
    assert f"not native: daqakd was installed without _C.so: {WHY}" in told
    note(package, "none")
    warned, told = used(package, compiler=True)
    assert not warned
    assert f"without _C.so by DAQAKD_BUILD=none; to build it: {COMMAND}" in told


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder in the package's place, on a machine with neither compiler nor GPU."""
    monkeypatch.setattr(native, "FOLDER", tmp_path)
    monkeypatch.setattr(native, "DRIVERS", ("/nonexistent",))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    return tmp_path


def test_a_machine_that_could_not_use_it_is_left_in_peace(folder):
    assert not native._could_be_mended("cpu")
    assert not native._could_be_mended("cuda")


def test_a_source_folder_that_was_never_built(folder, monkeypatch):
    assert native._load("cpu") == f"daqakd was installed without _C.so; to build it: {native.BUILD}"
    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/g++")
    assert native._could_be_mended("cpu") == (sys.platform == "linux")


def test_a_gpu_wants_the_cpu_library_and_has_triton_for_its_own(folder, monkeypatch):
    monkeypatch.setattr(native, "DRIVERS", (str(folder),))
    assert native._could_be_mended("cpu")
    assert not native._could_be_mended("cuda")
    note(folder, "none")
    assert not native._could_be_mended("cpu")


def test_a_library_that_does_not_load(folder, monkeypatch):
    for name in native.FILES.values():
        (folder / name).write_bytes(b"no library")
    failures = {device: native._load(device) for device in native.FILES}
    assert "_C.so does not load with torch" in failures["cpu"]
    with pytest.warns(
        RuntimeWarning, match=r"_C\.so does not load.*the ops on cpu are slower"
    ) as said:
        native._warn(failures)
    assert len(said) == 1
    monkeypatch.setattr(native, "DRIVERS", (str(folder),))
    with pytest.warns(RuntimeWarning) as said:
        native._warn(failures)
    assert len(said) == 2
