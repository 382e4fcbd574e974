"""What a machine without a package index is given, and what it makes sure of before it starts."""

import json
import os
import subprocess
import tarfile

import pytest

from benchmarks import gpu_bundle, gpu_libraries


def touched(path, seconds):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"library")
    os.utime(path, (seconds, seconds))
    return path


@pytest.fixture
def built(tmp_path):
    """A package with libraries that are newer than their sources."""
    for name in gpu_bundle.LIBRARIES:
        touched(tmp_path / "package" / name, 200)
    touched(tmp_path / "csrc/cuda/lsq.cu", 100)
    touched(tmp_path / "csrc/host/pack.cpp", 300)  # no part of them
    return tmp_path


def test_libraries_are_taken_when_they_are_new(built):
    host = touched(built / "package/_host.cpython-399.so", 1)
    found = gpu_bundle.libraries(built / "package", built / "csrc")
    assert [path.name for path in found] == ["_C.so", "_C_cuda.so", host.name]


def test_libraries_older_than_their_sources_are_refused(built):
    touched(built / "csrc/formulas/lsq.h", 201)
    with pytest.raises(SystemExit, match=r"_C\.so is older than csrc; build it: DAQAKD_BUILD=cuda"):
        gpu_bundle.libraries(built / "package", built / "csrc")


def test_a_missing_library_is_named(built):
    (built / "package/_C_cuda.so").unlink()
    with pytest.raises(SystemExit, match=r"_C_cuda\.so is missing"):
        gpu_bundle.libraries(built / "package", built / "csrc")


@pytest.fixture
def packed(tmp_path, monkeypatch):
    """A place for a bundle without libraries, with a wheel that is made up."""
    root = tmp_path / "data"
    for i in range(3):
        touched(root / f"cifar10/train/cat/{i}.png", 1)
    touched(root / "teachers/cifar10_resnet20.safetensors", 1)
    touched(root / "teachers/cifar100_resnet20.safetensors", 1)
    monkeypatch.setattr(gpu_bundle, "libraries", list)
    wheel = "pytest/__init__.py"
    monkeypatch.setattr(gpu_bundle, "download", lambda folder: touched(folder / wheel, 1))
    monkeypatch.setattr(gpu_bundle, "IMAGES_PER_CLASS", 2)
    monkeypatch.setenv("DAQAKD_DATA", str(root))
    return tmp_path / "bundle.tar.gz"


def test_a_bundle_has_sources_wheels_and_images(packed, capsys):
    assert gpu_bundle.pack(packed) == 0
    with tarfile.open(packed) as tar:
        names = {name.removeprefix("daqakd-gpu/") for name in tar.getnames()}
    assert {"start", "bundle.json", "site/pytest/__init__.py", "setup.py"} <= names
    assert {"benchmarks/gpu.py", "kernels/lsq.py", "csrc/cuda/lsq.cu", "pyproject.toml"} <= names
    assert {name for name in names if name.startswith("data/")} == {
        "data/teachers/cifar10_resnet20.safetensors",
        "data/cifar10/train/cat/0.png",
        "data/cifar10/train/cat/1.png",
    }
    assert not any(name.startswith("benchmarks/results") for name in names)
    assert "MiB packed" in capsys.readouterr().out


def test_a_bundle_that_cannot_be_carried_fails(packed, monkeypatch, capsys):
    monkeypatch.setattr(gpu_bundle, "LIMIT", 1000)
    assert gpu_bundle.pack(packed) == 1
    assert "larger than" in capsys.readouterr().out


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_the_start_of_a_bundle_needs_no_index(version, packed, tmp_path):
    gpu_bundle.pack(packed)
    with tarfile.open(packed) as tar:
        tar.extractall(tmp_path / "there", filter="data")
    python = tmp_path / "python"
    answer = f'if [ "$1" = -c ]; then echo {version}; else env; echo "$@"; fi'
    python.write_text(f"#!/bin/sh\n{answer}\n")
    python.chmod(0o755)
    start = tmp_path / "there/daqakd-gpu/start"
    said = subprocess.check_output(
        ["sh", start, "--dry"], env={"PATH": os.environ["PATH"], "PYTHON": str(python)}, text=True
    ).splitlines()
    folder = str(start.parent)
    wheels = f":{folder}/site" if version == gpu_bundle.PYTHON else ""
    assert f"PYTHONPATH={folder}{wheels}" in said
    assert f"DAQAKD_DATA={folder}/data" in said
    assert "PIP_NO_INDEX=1" in said
    assert said[-1] == "-m benchmarks.gpu --dry"
    assert json.loads((start.parent / "bundle.json").read_text())["commit"]


def test_what_cannot_run_is_said_with_its_reason(monkeypatch):
    reasons = {"native": "no _C_cuda.so", "triton": None}
    monkeypatch.setattr(
        "daqakd.backends.can_run", lambda op, backend, device, dtype: reasons[backend]
    )
    assert gpu_libraries.missing("cuda") == ["native: no _C_cuda.so"]
    reasons["native"] = None
    assert gpu_libraries.missing("cuda") == []


@pytest.mark.parametrize(
    ("bundled", "loads", "code", "runs"),
    [
        (True, [True], 0, 0),  # a bundle's libraries are taken as they are
        (True, [False, True], 0, 1),
        (True, [False, False], 1, 1),
        (False, [True], 0, 1),
        (False, [False], 1, 1),
    ],
)
def test_libraries_are_built_where_they_must_be(bundled, loads, code, runs, tmp_path, monkeypatch):
    built = []

    def run(command, env, check):
        built.append((command[1:], env["DAQAKD_BUILD"]))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.chdir(tmp_path)
    if bundled:
        gpu_libraries.BUNDLE_FILE.touch()
    monkeypatch.setattr(gpu_libraries, "all_there", lambda device: loads.pop(0))
    monkeypatch.setattr(gpu_libraries.subprocess, "run", run)
    monkeypatch.setattr("sys.argv", ["gpu_libraries", "cuda"])
    assert gpu_libraries.main() == code
    assert built == [(["setup.py", "build_ext", "--inplace"], "cuda")] * runs


def test_a_build_that_fails_is_loud(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    failed = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(gpu_libraries.subprocess, "run", lambda command, env, check: failed)
    monkeypatch.setattr("sys.argv", ["gpu_libraries", "cuda"])
    assert gpu_libraries.main() == 1
