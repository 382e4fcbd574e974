"""Build, test and measure on a GPU in one go, in less than nine minutes.

``python -m benchmarks.gpu --out runs/gpu`` leaves gpu.md, gpu.json (all rows) and gpu.log there, as
far as it got; it needs no package index and no installation. ``--dry`` walks the same stages
without a GPU. Real images are ranked, too, where DAQAKD_DATA is set.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daqakd._files import write_json, write_text

from .gpu_stages import OPS, stages
from .stage import run

BUDGET = 9 * 60  # seconds for everything
SHOWN = ("augment", "share", "ranking", "cifar10")  # rows in the short table at the end
FACTS = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
HIDDEN = ("op", "elements", "step_seconds", "note")  # of the tables
OURS = ("native", "triton", "reference", "recompute")
DRY_ENVIRONMENT = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": "1"}


def output_of(*command: str) -> str:
    """Return what a command prints."""
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def device_name() -> str:
    """Name the GPU and torch, in a process of its own."""
    code = (
        "import torch; c = torch.cuda; print(f'{c.get_device_name() if c.is_available() else None},"
        " torch {torch.__version__}, CUDA {torch.version.cuda}')"
    )
    return output_of(sys.executable, "-c", code)


def state() -> str:
    """Return the GPU's clocks, temperature and power at this moment."""
    if shutil.which("nvidia-smi") is None:
        return ""
    return output_of("nvidia-smi", f"--query-gpu={FACTS}", "--format=csv,noheader")


def rows_of(folder: Path) -> list[dict[str, Any]]:
    """Return the rows that a stage has written so far."""
    files = sorted(folder.glob("*.json"))
    return [row for file in files for row in json.loads(file.read_text())["rows"]]


def verified(found: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add how many rows a benchmark has; a wrong result of ours fails the stage."""
    refused = [f"{row['contestant']}: {row['note']}" for row in rows if row["note"]]
    wrong = any(note.startswith(OURS) for note in refused)
    rates = [row["images_per_second"] for row in rows if row["contestant"] == "native"]
    least = min((rate for rate in rates if rate), default=0)
    says = f"{len(rows)} rows, {len(refused)} refused; {'; '.join(refused[:2]) or found['says']}"
    says = f"native: at least {least:,.0f} images/s; {says}" if least else says
    return found | {"code": found["code"] or int(wrong), "says": says}


def cell(value: Any) -> str:
    """Return a cell."""
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return "-" if value is None else str(value)


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Return rows as Markdown."""
    heads = [key for key in rows[0] if key not in HIDDEN]
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for row in rows:
        note = f" {row['note']}" if row.get("note") else ""
        lines.append(f"| {' | '.join(cell(row[head]) for head in heads)} |{note}")
    return lines


def page(report: dict[str, Any], names: tuple[str, ...] | None = None) -> str:
    """Return the report as Markdown, with all rows, or some stages' of 32 bits."""
    lines = [f"# GPU run, {report['date']}", "", f"Device: {report['device']}", ""]
    lines += ["| stage | exit | seconds | GPU after it | last line |", "|---|---|---|---|---|"]
    for name, one in report["stages"].items():
        cells = name, one["code"], f"{one['seconds']:.0f}", one["gpu"], one["says"][:120]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    for name, rows in report["rows"].items():
        if names is not None:
            rows = [r for r in rows if name in names and r.get("dtype") != "bfloat16"]
        if rows:
            lines += ["", f"## {name}", "", *table(rows)]
    return "\n".join([*lines, ""])


@contextmanager
def importable_kernels() -> Iterator[None]:
    """Put ``daqakd.kernels`` where Python finds it in a checkout that is not installed."""
    link, missing = Path("daqakd/kernels"), find_spec("daqakd.kernels") is None
    if missing:
        link.symlink_to("../kernels")
    try:
        yield
    finally:
        if missing:
            link.unlink()


def run_all(out: Path, scratch: Path, dry: bool) -> dict[str, Any]:
    """Run all stages; write the report after each, and every few seconds meanwhile."""
    log, end, plan = out / "gpu.log", time.monotonic(), stages(scratch, dry)
    assert sum(stage.seconds for stage in plan.values()) <= BUDGET
    log.write_text("")
    report: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "device": device_name()}
    report |= {"stages": {}, "rows": {}}

    def save() -> None:
        report["rows"] = {name: rows_of(scratch / name) for name in plan}
        write_json(out / "gpu.json", report)
        write_text(out / "gpu.md", page(report))

    for name, stage in plan.items():
        end += stage.seconds  # what a stage does not need is left to the next
        if stage.missing:
            found: dict[str, Any] = {"code": 0, "seconds": 0, "says": f"skipped: {stage.missing}"}
        else:
            left = end - time.monotonic()
            print(f"{name}: {stage.purpose}, in at most {left:.0f} s", flush=True)
            found = run(stage, log, end, save)
            found = verified(found, rows_of(scratch / name)) if name in OPS else found
        report["stages"][name] = {**found, "gpu": state()}
        save()
        print(f"{name}: exit {found['code']} after {found['seconds']:.0f} s: {found['says'][:150]}")
    return report


def main() -> int:
    """Run all stages within the budget; return 0 when every one passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--dry", action="store_true", help="walk the stages without a GPU")
    options = parser.parse_args()
    if device_name().startswith("None") and not options.dry:
        print("no GPU that torch sees; `make gpu DRY=1` walks the script without one")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ |= DRY_ENVIRONMENT if options.dry else {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the stage, too
    with tempfile.TemporaryDirectory() as scratch, importable_kernels():
        report = run_all(options.out.resolve(), Path(scratch), options.dry)
    print(f"\n{page(report, SHOWN)}\nmore is in {options.out / 'gpu.md'} and gpu.json, gpu.log")
    return int(any(one["code"] for one in report["stages"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
