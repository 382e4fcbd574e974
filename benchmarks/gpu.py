"""Test and measure on a GPU in one go, in less than nine minutes.

``python -m benchmarks.gpu --out runs/gpu`` leaves gpu.md, gpu.json (all rows) and logs there, as
far as it got; it needs no package index and no installation. ``--bundle FILE`` packs what a machine
with torch, Triton and NumPy alone needs for that. ``--dry`` walks the stages without a GPU. Real
images are ranked, too, where DAQAKD_DATA is set.
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
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from daqakd._files import write_json, write_text

from .gpu_bundle import pack
from .gpu_report import SMALL_PAGE, page, rows_of
from .gpu_stages import OPS, stages
from .stage import STOPPED, beside, run

BUDGET = 9 * 60  # seconds for everything
FACTS = "clocks.sm,clocks.mem,temperature.gpu,power.draw"
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


def copy_speed(scratch: Path) -> float | None:
    """Return bytes per second of a copy, as the first benchmark measured it."""
    records = [json.loads(file.read_text()) for file in sorted(scratch.glob("*/bench.json"))]
    return records[0]["copy_bytes_per_second"] if records else None


def verified(found: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Add how many rows a benchmark has; a wrong result of ours fails the stage."""
    refused = [f"{row['provider']}: {row['note']}" for row in rows if row["note"]]
    wrong = any(note.startswith(OURS) for note in refused)
    rates = [row["images_per_second"] for row in rows if row["provider"] == "native"]
    least = min((rate for rate in rates if rate), default=0)
    says = f"{len(rows)} rows, {len(refused)} refused; {'; '.join(refused[:2]) or found['says']}"
    says = f"native: at least {least:,.0f} images/s; {says}" if least else says
    return found | {"code": found["code"] or int(wrong), "says": says}


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


class Report:
    """What is known of a run, written after each stage and every few seconds meanwhile."""

    def __init__(self, out: Path, scratch: Path, names: list[str], dry: bool) -> None:
        self.out, self.scratch, self.names = out, scratch, names
        self.found: dict[str, Any] = {"date": time.strftime("%Y-%m-%d %H:%M"), "dry": dry}
        self.found |= {"device": device_name(), "stages": {}, "rows": {}}

    def save(self) -> None:
        """Write gpu.json and gpu.md."""
        self.found["rows"] = {name: rows_of(self.scratch / name) for name in self.names}
        self.found["copy_bytes_per_second"] = copy_speed(self.scratch)
        write_json(self.out / "gpu.json", self.found)
        write_text(self.out / "gpu.md", page(self.found))

    def keep(self, name: str, found: dict[str, Any]) -> None:
        """Add what a stage did."""
        found = verified(found, rows_of(self.scratch / name)) if name in OPS else found
        self.found["stages"][name] = {**found, "gpu": state()}
        self.save()
        said = f"{name}: exit {found['code']} after {found['seconds']:.0f} s: {found['says'][:150]}"
        print(said, flush=True)


def run_all(out: Path, scratch: Path, dry: bool) -> dict[str, Any]:
    """Run all stages; what one does not need of its time is left to the next."""
    begin, plan = time.monotonic(), stages(scratch, dry)
    report, log, end = Report(out, scratch, list(plan), dry), out / "gpu.log", begin
    log.write_text("")
    with ExitStack() as background:
        for name, stage in plan.items():
            end = min(end + stage.seconds, begin + BUDGET)
            left = end - time.monotonic()
            if stage.alone:
                background.close()
            if stage.missing:
                report.keep(name, {"code": 0, "seconds": 0, "says": f"skipped: {stage.missing}"})
            elif stage.beside:
                keep = partial(report.keep, name)
                background.enter_context(beside(stage, out / f"{name}.log", keep))
            elif left < 1:
                report.keep(name, {"code": STOPPED, "seconds": 0, "says": "no time was left"})
            else:
                print(f"{name}: {stage.purpose}, in at most {left:.0f} s", flush=True)
                report.keep(name, run(stage, log, end, report.save))
    return report.found


def main() -> int:
    """Run all stages within the budget; return 0 when every one passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--dry", action="store_true", help="walk the stages without a GPU")
    parser.add_argument("--bundle", type=Path, metavar="FILE", help="pack a run into a .tar.gz")
    options = parser.parse_args()
    if options.bundle:
        return pack(options.bundle)
    if device_name().startswith("None") and not options.dry:
        print("no GPU that torch sees; `make gpu DRY=1` walks the script without one")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ |= DRY_ENVIRONMENT if options.dry else {}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends the stage, too
    with tempfile.TemporaryDirectory() as scratch, importable_kernels():
        report = run_all(options.out.resolve(), Path(scratch), options.dry)
    print(
        f"\n{page(report, SMALL_PAGE)}\nmore is in {options.out / 'gpu.md'} and gpu.json, gpu.log"
    )
    return int(any(one["code"] for one in report["stages"].values()))


if __name__ == "__main__":
    raise SystemExit(main())
