"""A layer imports only what stands left of it; importing the package touches no GPU library."""

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import daqakd

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "daqakd"

# the import rule, left to right; names in one tuple stand side by side and do not see each other
ORDER = (
    ("_errors", "kernels"),
    ("_ranks",),
    ("_files", "_console"),
    ("_arguments", "_config", "_lock", "_ops", "_packing", "_cmi", "_kd", "_statistics"),
    ("backends",),
    ("functional",),
    ("quant", "augment", "models"),
    ("data", "losses", "nn"),
    ("export", "ranking"),
    ("train", "recipes"),
    ("report", "bench"),
    ("sweep",),
    ("study",),
    ("select",),
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


MODULES = {
    ".".join(("daqakd", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p
    for p in PACKAGE.rglob("*.py")
}


def imports_of(name: str) -> set[str]:
    """Return the package's modules that a module imports as it is loaded."""
    path, found = MODULES[name], set()
    home = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.parse(path.read_text()).body:  # not below TYPE_CHECKING or in functions
        if isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join(home[: len(home) - node.level + 1])
            source = f"{base}.{node.module}" if node.module else base
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                found.add(whole if whole in MODULES else source)
    return found - {name}


def test_no_module_imports_itself_in_a_circle():
    order = list(TopologicalSorter({name: imports_of(name) for name in MODULES}).static_order())
    assert order.index("daqakd.functional.lsq") < order.index("daqakd.cli.run")
    with pytest.raises(CycleError):
        TopologicalSorter({"a": {"b"}, "b": {"a"}}).prepare()


def test_modules_are_reached_by_import():
    """No function of the same name stands before a module."""
    for name in ("daqakd.ranking.job", "daqakd.train.trainer"):
        assert name in MODULES
    code = (
        "import daqakd.ranking.job as job, daqakd.train.trainer as trainer\n"
        "print(job.__name__, trainer.__name__)\n"
        "import daqakd.ops\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["daqakd.ranking.job", "daqakd.train.trainer"]
    assert "No module named 'daqakd.ops'" in done.stderr


def test_the_package_loads_torch_at_the_first_use_of_a_name():
    code = (
        "import sys, daqakd, daqakd.cli.main as cli\n"
        "assert cli.main(['--help']) == 0 and 'torch' not in sys.modules\n"
        "assert all(getattr(daqakd, name) is not None for name in daqakd.__all__)\n"
        "assert set(daqakd.__all__) <= set(dir(daqakd)) and 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="has no attribute 'rnak'"):
        _ = daqakd.rnak


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
