"""What is installed: one top-level name, the kernels folder under it, a guard on its bare name."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def installed() -> bool:
    try:
        return files("daqakd") is not None
    except PackageNotFoundError:
        return False


needs_install = pytest.mark.skipif(not installed(), reason="daqakd is not pip-installed")


@needs_install
def test_kernels_are_daqakd_kernels():
    import daqakd.kernels

    assert Path(daqakd.kernels.__file__).parts[-2:] == ("kernels", "__init__.py")


def test_bare_kernels_explains_itself():
    code = "import sys; sys.path.insert(0, '.'); import kernels"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode != 0
    assert "daqakd.kernels" in result.stderr


def test_version_is_written_the_same_twice():
    import daqakd

    assert f'version = "{daqakd.__version__}"' in (ROOT / "pyproject.toml").read_text()


def test_every_folder_of_python_is_packaged():
    declared = (ROOT / "pyproject.toml").read_text()
    for folder in {p.parent for p in (ROOT / "daqakd").rglob("*.py")}:
        name = ".".join(folder.relative_to(ROOT).parts)
        assert f'"{name}"' in declared, f"{name} is missing from [tool.setuptools] packages"


def test_wheel_has_one_top_level_name(tmp_path, monkeypatch):
    monkeypatch.setenv("DAQAKD_BUILD", "none")
    source = tmp_path / "source"
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=unwanted)
    command = ["wheel", str(source), "--no-deps", "--no-build-isolation", "-q", "-w", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *command], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("daqakd-*.whl"))) as wheel:
        names = wheel.namelist()
    tops = {n.split("/")[0] for n in names if ".dist-info" not in n}
    assert tops == {"daqakd"}
    assert "daqakd/kernels/__init__.py" in names
    assert "daqakd/py.typed" in names
