"""The unattended GPU run: limits, what a kill leaves, what is skipped and why."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks import gpu, gpu_stages
from benchmarks.stage import STOPPED, Stage, run

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
    found = ended(python(ENDLESS.replace("time.sleep(60)", mark), 1.5), tmp_path / "log")
    assert found["code"] == STOPPED
    assert found["says"].endswith("; on")
    assert found["seconds"] < 10
    assert not left_running(mark)


@pytest.mark.parametrize("dry", [True, False])
def test_the_stages_fit_the_budget(dry, tmp_path):
    plan = gpu_stages.stages(tmp_path, dry)
    assert sum(stage.seconds for stage in plan.values()) <= gpu.BUDGET
    assert {"build", "tests", "augment", "share", "ranking", "cifar10"} <= plan.keys()


def test_real_images_are_ranked_where_they_are(tmp_path, monkeypatch):
    monkeypatch.delenv("DAQAKD_DATA", raising=False)
    assert gpu_stages.real_images(tmp_path, dry=True).missing == "DAQAKD_DATA is not set"
    monkeypatch.setenv("DAQAKD_DATA", str(tmp_path))
    assert "no cifar10/train" in gpu_stages.real_images(tmp_path, dry=True).missing
    (tmp_path / "cifar10/train").mkdir(parents=True)
    assert gpu_stages.real_images(tmp_path, dry=True).missing is None


def test_a_wrong_result_of_ours_fails_its_stage():
    found = {"code": 0, "says": ""}
    wrong = {"note": "its values are wrong", "images_per_second": None}
    ours, other = {"contestant": "native-plan", **wrong}, {"contestant": "liger", **wrong}
    assert gpu.verified(found, [other])["code"] == 0
    assert gpu.verified(found, [other, ours])["code"] == 1
    assert gpu.verified(found | {"code": STOPPED}, [])["code"] == STOPPED
    rows = [{"contestant": "native", "note": "", "images_per_second": rate} for rate in (9e4, 2e5)]
    assert gpu.verified(found, rows)["says"].startswith("native: at least 90,000 images/s; 2 rows")


WALK = f"""
import sys
from pathlib import Path
from benchmarks import gpu, stage
rows = "import json, time, pathlib; p = pathlib.Path(%r) / 'first'; p.mkdir();"
rows += "(p / 'a.json').write_text(json.dumps({{'rows': [{{'what': 1, 'note': 'said'}}]}}));"
python = lambda code: stage.Stage("runs", [sys.executable, "-c", code], 30)
stage.SECONDS_BETWEEN_CALLBACKS = 0.1
gpu.stages = lambda scratch, dry: {{
    "first": python(rows % str(scratch) + "raise SystemExit(1)"),
    "skipped": stage.Stage("", [], 0, missing="it is not there"),
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
    assert "| 1 | said" in (tmp_path / "gpu.md").read_text()
    assert not left_running("time.sleep(61.75)")
