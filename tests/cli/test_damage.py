"""Every file of a run, damaged in every way: one sentence names it, and nothing else changes."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from daqakd._files import read_json
from daqakd.cli.main import main

from ..helpers.small import write_images

SHORT: tuple[str, ...] = ("--batch-size", "32", "--teacher-epochs", "4", "--epochs", "1")
SHORT += ("--strategies", "minimal", "cutmix", "--until-sure", "--images", "480")


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flip(content: bytes) -> bytes:
    spoilt = bytearray(content)
    spoilt[2 * len(spoilt) // 3] ^= 4
    return bytes(spoilt)


def hole(content: bytes) -> bytes:
    start, stop = len(content) // 3, len(content) // 3 + max(len(content) // 10, 1)
    return content[:start] + bytes(stop - start) + content[stop:]


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "cut": cut,
    "zeroed": lambda content: bytes(len(content)),
    "flipped": flip,
    "hole": hole,
}
# file, and who reads it: run goes on where it was cut, eval and report take what is there
KINDS = {
    "config.toml": "run",
    "teacher.safetensors": "run",
    "checkpoint/student.safetensors": "run",
    "ranking.parts/minimal.safetensors": "run",
    "ranking.parts/rounds.json": "run",
    "student.safetensors": "eval",
    "student.packed.safetensors": "eval --packed",
    "eval.json": "eval",
    "ranking.json": "report",
    "env.json": "report",
    "metrics.csv": "report",
    "teacher_metrics.csv": "report",
    "metrics.jsonl": "report",
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"), train=480, test=30)


@pytest.fixture(scope="module")
def finished(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["run", str(tree), "--out", str(out), *SHORT]) == 0
    return out


@pytest.fixture(scope="module")
def unfinished(finished) -> Path:
    """The same run, killed after the student's last checkpoint."""
    out = finished.with_name("unfinished")
    shutil.copytree(finished, out)
    for name in ("student.safetensors", "student.packed.safetensors", "eval.json"):
        (out / name).unlink()
    return out


def contents(folder: Path) -> dict[str, bytes]:
    found = (p for p in folder.rglob("*") if p.is_file() and p.name != "report.html")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_file_is_named(kind, damage, tree, finished, unfinished, capsys):
    command, *options = KINDS[kind].split()
    out = unfinished if command == "run" else finished
    line = ["run", str(tree), "--out", str(out), *SHORT]
    path, before = out / kind, contents(out)
    try:
        path.write_bytes(DAMAGES[damage](before[kind]))
        after = contents(out)
        assert after != before
        assert main(line if command == "run" else [command, str(out), *options]) == 2
        error = capsys.readouterr().err
        assert error.startswith("daqakd: error: ")
        assert error.count("\n") == 1
        assert re.search(f"{kind}: .*damaged.*; delete it and run the command that wr", error), (
            error
        )
        rewritten = {
            "ranking.json",
            "ranking.csv",
            "ranking.png",
        }  # from the parts, before training
        now = contents(out)
        assert all(now[name] == after[name] for name in after.keys() - rewritten)
    finally:
        for name, content in before.items():
            (out / name).write_bytes(content)


def test_without_the_damaged_checkpoint_the_run_ends_as_before(tree, finished, unfinished):
    (unfinished / "checkpoint/student.safetensors").unlink()
    (unfinished / "ranking.parts/minimal.safetensors").unlink()
    assert main(["run", str(tree), "--out", str(unfinished), *SHORT]) == 0
    for name in ("student.safetensors", "student.packed.safetensors", "metrics.csv", "eval.json"):
        assert (unfinished / name).read_bytes() == (finished / name).read_bytes()


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_search(damage, tree, finished, tmp_path, capsys):
    line = ["search", str(tree), "--teacher", str(finished), "--out", str(tmp_path)]
    line += ["--compositions", "3", "--images", "120"]
    assert main(line) == 0
    assert read_json(tmp_path / "search.json")["best"]
    (path,) = (tmp_path / "ranking.parts").glob("rounds.json")
    for spoilt in (path, tmp_path / "search.json"):
        spoilt.write_bytes(DAMAGES[damage](spoilt.read_bytes()))
    assert main(line) == 2
    assert "rounds.json: damaged" in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"search\.json: damaged"):
        read_json(tmp_path / "search.json")
