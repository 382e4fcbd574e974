"""A layer imports only what stands left of it; importing the package touches no GPU library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "daqakd"

# the import rule, left to right; names in one tuple stand side by side and do not see each other
ORDER = (
    ("_errors", "_files", "_console", "kernels"),
    ("_config", "_ops", "_packing", "_cmi", "_kd"),
    ("backends",),
    ("functional",),
    ("quant", "augment", "models"),
    ("data",),
    ("ranking",),
    ("train",),
    ("report", "bench"),
    ("cli",),
    ("demo", "__main__"),
)
PLACE = {name: place for place, names in enumerate(ORDER) for name in names}


def layer_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_layers(path: Path):
    """Yield (line, layer) for every import of this package's own layers in a file."""
    depth = len(path.relative_to(PACKAGE).parts)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            names = [node.module] if node.module else [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("daqakd."):
            names = [str(node.module).removeprefix("daqakd.")]
        else:
            continue
        for name in names:
            yield node.lineno, name.split(".")[0]


SOURCES = sorted(p for p in PACKAGE.rglob("*.py") if p != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_only_what_stands_left(path):
    own = layer_of(path)
    assert own in PLACE, f"{path} is in no layer: add it to ORDER"
    for line, other in imported_layers(path):
        allowed = other == own or PLACE[other] < PLACE[own]
        assert allowed, f"{path}:{line}: {own} must not import {other}"


def test_the_rule_sees_a_violation(tmp_path, monkeypatch):
    bad = tmp_path / "quant" / "bad.py"
    bad.parent.mkdir()
    bad.write_text("from ..ranking import rank\nfrom daqakd.train import distill\n")
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    assert [layer for _, layer in imported_layers(bad)] == ["ranking", "train"]


def test_kernels_import_torch_triton_and_the_standard_library_only():
    for path in (ROOT / "kernels").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            else:
                continue
            for name in names:
                top = name.split(".")[0]
                allowed = top in ("torch", "triton") or top in sys.stdlib_module_names
                assert allowed, f"{path}: imports {name}"


def test_import_touches_neither_torchvision_nor_a_driver():
    code = (
        "import sys, torch, daqakd.cli.rank, daqakd.demo\n"
        "assert 'torchvision' not in sys.modules\n"
        "assert 'matplotlib' not in sys.modules and 'sklearn' not in sys.modules\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
