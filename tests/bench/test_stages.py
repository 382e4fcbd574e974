"""The unattended GPU run: limits, what a kill leaves, what is skipped and why."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_stages
from benchmarks.stage import STOPPED, Stage, beside, run

ROOT = Path(__file__).parents[2]
ENDLESS = "import subprocess, sys, time; print('on', flush=True); " + (
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']).wait()"
)


def python(code: str, seconds: float = 30) -> Stage:
    return Stage("runs", [sys.executable, "-c", code], seconds)


def ended(stage: Stage, log: Path) -> dict:
    return run(stage, log, time.monotonic() + stage.seconds, lambda: None)


def left_running(text: str) -> list[str]:
    """Return processes whose command line contains ``text``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            line = file.read_bytes().decode(errors="replace")
            found += [line] if text in line else []
    return found


def test_a_stage_says_its_exit_code_and_last_line(tmp_path):
    log = tmp_path / "log"
    assert ended(python("print('first')"), log)["says"] == "first"
    found = ended(python("print('second\\n'); raise SystemExit(3)"), log)
    assert (found["code"], found["says"]) == (3, "second")
    assert ended(python(""), log)["says"] == ""
    assert "first" in log.read_text()


def test_a_stage_beyond_its_limit_is_ended_with_all_it_started(tmp_path):
    mark = "time.sleep(61.25)"
    found = ended(python(ENDLESS.replace("time.sleep(60)", mark), 4), tmp_path / "log")
    assert found["code"] == STOPPED
    assert found["says"].endswith("; on")
    assert found["seconds"] < 10
    assert not left_running(mark)


@pytest.fixture
def children(monkeypatch):
    """Return the processes that the test starts."""
    started = []

    class Noted(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            started.append(self)

    monkeypatch.setattr("benchmarks.stage.subprocess.Popen", Noted)
    return started


def until(done: Callable[[], object]) -> None:
    """Wait for what a loaded machine may take long for."""
    end = time.monotonic() + 30
    while not done() and time.monotonic() < end:
        time.sleep(0.05)


def has_ended(child: subprocess.Popen) -> bool:
    """Return whether a child can be waited for, without doing so."""
    return bool(os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT))


@pytest.mark.parametrize("more", ["", "print('on', flush=True); time.sleep(61.5)"])
def test_a_stage_beside_others_ends_with_them_and_is_no_failure(more, children, tmp_path):
    log, kept = tmp_path / "log", []
    with beside(python(f"import time; print('begun', flush=True); {more}"), log, kept.append):
        until(lambda: "on\n" in log.read_text() if more else has_ended(children[0]))
        assert not kept
    said = "ended before it was done; on" if more else "begun"
    assert (kept[0]["code"], kept[0]["says"]) == (0, said)
    assert not left_running("time.sleep(61.5)")


def test_a_stage_beside_others_may_fail(children, tmp_path):
    log, kept = tmp_path / "log", []
    with beside(python("raise SystemExit('broken')"), log, kept.append):
        until(lambda: has_ended(children[0]))
    assert (kept[0]["code"], kept[0]["says"]) == (1, "broken")


@pytest.mark.parametrize("dry", [True, False])
def test_the_stages_fit_the_budget(dry, tmp_path):
    plan = gpu_stages.stages(tmp_path, dry)
    taken = sum(stage.seconds for stage in plan.values())
    assert taken - gpu_stages.BUILD_SECONDS <= gpu.BUDGET  # a bundle brings its libraries
    assert plan.keys() - {"compiled"} == gpu_stages.SECONDS.keys()


def test_what_is_right_is_known_before_anything_is_timed(tmp_path):
    plan = gpu_stages.stages(tmp_path, dry=False)
    alone = [stage.alone for stage in plan.values()]
    assert list(plan)[:5] == ["libraries", "compiled", "tests", "memcheck", "racecheck"]
    assert alone == [False] * 5 + [True] * (len(plan) - 5)
    assert list(plan)[-1] == "ncu"


def test_every_stage_is_a_command_that_exists(tmp_path):
    for name, stage in gpu_stages.stages(tmp_path, dry=False).items():
        if stage.command[1:2] == ["-m"] and stage.command[2].startswith("benchmarks."):
            module = import_module(stage.command[2])
            assert module.main, name
    assert gpu_stages.stages(tmp_path, dry=False)["libraries"].command[-1] == "cuda"


def test_no_index_is_asked(tmp_path):
    for stage in gpu_stages.stages(tmp_path, dry=False).values():
        assert "pip" not in stage.command


def test_the_rows_of_a_gpu_have_four_sizes(tmp_path):
    command = gpu_stages.stages(tmp_path, dry=False)["lsq"].command[-1]
    assert all(str(size) in command for size in (2**16, 2**20, 2**24, 2**26))
    assert "'cuda'" in command


def test_real_images_are_ranked_where_they_are(tmp_path, monkeypatch):
    plan = gpu_stages.Plan(tmp_path, dry=True)
    monkeypatch.delenv("DAQAKD_DATA", raising=False)
    assert plan.real_images().missing == "DAQAKD_DATA is not set"
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    assert "no cifar10/train" in plan.real_images().missing
    (tmp_path / "cifar10/train").mkdir(parents=True)
    assert plan.real_images().missing is None


def test_a_tool_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    plan = gpu_stages.stages(tmp_path, dry=False)
    assert plan["memcheck"].missing == "compute-sanitizer is not installed"
    assert plan["ncu"].missing == "ncu is not installed"


def test_a_run_out_of_time_skips_the_rest(tmp_path, monkeypatch):
    plan = {"late": Stage("runs", [sys.executable, "-c", "print('ran')"], 0.5)}
    monkeypatch.setattr(gpu, "stages", lambda scratch, dry: plan)
    monkeypatch.setattr(gpu, "device_name", lambda: "none")
    found = gpu.run_all(tmp_path, tmp_path / "scratch", dry=True)["stages"]["late"]
    assert (found["code"], found["says"]) == (STOPPED, "no time was left")


def test_a_wrong_result_of_ours_fails_its_stage():
    found = {"code": 0, "says": ""}
    wrong = {"note": "its values are wrong", "images_per_second": None}
    ours, other = {"provider": "native-plan", **wrong}, {"provider": "liger", **wrong}
    assert gpu.verified(found, [other])["code"] == 0
    assert gpu.verified(found, [other, ours])["code"] == 1
    assert gpu.verified(found | {"code": STOPPED}, [])["code"] == STOPPED
    rows = [{"provider": "native", "note": "", "images_per_second": rate} for rate in (9e4, 2e5)]
    assert gpu.verified(found, rows)["says"].startswith("native: at least 90,000 images/s; 2 rows")


WALK = f"""
import sys
from dataclasses import replace
from pathlib import Path
from benchmarks import gpu, stage
rows = "import json, time, pathlib; p = pathlib.Path(%r) / 'first'; p.mkdir();"
rows += "(p / 'a.json').write_text(json.dumps({{'rows': [{{'what': 1, 'note': 'said'}}]}}));"
python = lambda code: stage.Stage("runs", [sys.executable, "-c", code], 30)
stage.SECONDS_BETWEEN_CALLBACKS = 0.1
gpu.stages = lambda scratch, dry: {{
    "first": python(rows % str(scratch) + "raise SystemExit(1)"),
    "skipped": stage.Stage("", [], 0, missing="it is not there"),
    "beside": replace(python({ENDLESS.replace("60", "61.8")!r}), beside=True),
    "second": python({ENDLESS.replace("60", "61.75")!r}),
}}
sys.argv = ["gpu", "--dry", "--out", sys.argv[1]]
raise SystemExit(gpu.main())
"""


def test_a_killed_run_keeps_its_rows_and_ends_its_stage(tmp_path):
    command = [sys.executable, "-c", WALK, str(tmp_path)]
    child = subprocess.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."})
    log, end = tmp_path / "gpu.log", time.monotonic() + 60
    while "\non" not in (log.read_text() if log.exists() else "") and time.monotonic() < end:
        time.sleep(0.1)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == 143
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["rows"]["first"] == [{"what": 1, "note": "said"}]
    assert report["stages"]["first"]["code"] == 1
    assert report["stages"]["skipped"]["says"] == "skipped: it is not there"
    assert "| 1 | said |" in (tmp_path / "gpu.md").read_text()
    assert not left_running("time.sleep(61.75)")
    assert not left_running("time.sleep(61.8)")
