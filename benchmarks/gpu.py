"""Build, test and measure on a GPU in one go; leaves gpu.json and gpu.md in the output folder.

``python -m benchmarks.gpu --out runs/gpu``; ``--dry`` walks the same steps without a GPU.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

BUDGET = 9 * 60  # seconds for everything
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
STEMS = ("lsq", "pact", "dorefa", "ewgs", "many", "kd_loss")
SIZES = "1024,16384,262144,4194304,16777216,67108864"


def steps(out: Path, dry: bool) -> dict[str, list[str]]:
    """Return the commands, by name, in order."""
    sanitizer = shutil.which("compute-sanitizer")
    marked = ["-m", "not gpu and not slow" if dry else "gpu"]
    tests = [*PYTEST, *sorted(str(p) for p in Path("tests").glob("test_gpu*.py")), *marked]
    commands = {
        "build": [sys.executable, "setup.py", "build_ext", "--inplace"],
        "tests": tests,
        "sanitizer": [sanitizer or "compute-sanitizer", *tests, "-k", "small"],
    }
    for stem in STEMS:
        rows = [f"benchmarks/bench_{stem}.py", f"--benchmark-json={out / stem}.json"]
        commands[stem] = [*PYTEST, *rows, "-m", "", "-k", "1024 and (tensor or 100)" if dry else ""]
    shares = [sys.executable, "-m", "benchmarks.bench_cmi", "--out", str(out)]
    commands["ranking"] = [*shares, *(["--turns", "1", "--classes", "10"] if dry else [])]
    if sanitizer is None:
        del commands["sanitizer"]
    return commands


def run(command: list[str], seconds: float, sizes: str) -> dict[str, object]:
    """Run one step; return its exit code, duration and last lines."""
    start = time.monotonic()
    environment = os.environ | {"DAQAKD_BENCH_SIZES": sizes, "DAQAKD_BENCH_REPEATS": "2"}
    try:
        done = subprocess.run(
            command, env=environment, timeout=seconds, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, check=False,
        )  # fmt: skip
        code, tail = done.returncode, done.stdout.splitlines()[-15:]
    except subprocess.TimeoutExpired:
        code, tail = 124, [f"stopped after {seconds:.0f} s: the budget is spent"]
    return {"command": command, "code": code, "seconds": time.monotonic() - start, "tail": tail}


def table(file: Path) -> list[dict[str, object]]:
    """Return a row per case and contestant: the median over repeats, the fraction of the floor."""
    if not file.exists():
        return []
    rows = defaultdict(list)
    for entry in json.loads(file.read_text())["benchmarks"]:
        p, extra = entry["params"], entry["extra_info"]
        key = (extra["op"], p["size"], p["dtype"], p["form"], p["name"])
        rows[key].append((entry["stats"]["median"], extra["floor_seconds"]))
    found = []
    for (op, size, dtype, form, name), measured in sorted(rows.items()):
        median = statistics.median(seconds for seconds, _ in measured)
        floor = statistics.median(seconds for _, seconds in measured)
        found.append(
            {"op": op, "size": size, "dtype": dtype, "form": form, "name": name,
             "microseconds": 1e6 * median, "of_floor": floor / median}
        )  # fmt: skip
    return found


def page(report: dict) -> str:
    """Return the report as Markdown."""
    lines = [f"# GPU run, {report['date']}", "", f"Device: {report['device']}", ""]
    lines += ["| step | exit | seconds |", "|---|---|---|"]
    lines += [f"| {n} | {s['code']} | {s['seconds']:.0f} |" for n, s in report["steps"].items()]
    lines += ["", "| op | elements | dtype | form | contestant | us | of floor |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in report["rows"]:
        lines.append(
            f"| {row['op']} | {row['size']} | {row['dtype']} | {row['form']} | {row['name']}"
            f" | {row['microseconds']:.1f} | {row['of_floor']:.2f} |"
        )
    return "\n".join([*lines, ""])


def device_name() -> str:
    """Name the GPU, driver and torch, in a process of its own."""
    code = (
        "import torch; c = torch.cuda; print(f'{c.get_device_name() if c.is_available() else None},"
        " torch {torch.__version__}, CUDA {torch.version.cuda}')"
    )
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    """Run all steps within the budget; return 0 when every one passed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/gpu"))
    parser.add_argument("--dry", action="store_true", help="walk the steps without a GPU")
    options = parser.parse_args()
    device = device_name()
    if device.startswith("None") and not options.dry:
        print("no GPU that torch sees; `make gpu DRY=1` walks the script without one")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    end, results = time.monotonic() + BUDGET, {}
    for name, command in steps(options.out, options.dry).items():
        left = max(1.0, end - time.monotonic())
        results[name] = run(command, left, "1024" if options.dry else SIZES)
        print(f"{name}: exit {results[name]['code']} after {results[name]['seconds']:.0f} s")
        if results[name]["code"]:
            print("\n".join(results[name]["tail"]))
    report = {
        "date": time.strftime("%Y-%m-%d %H:%M"),
        "device": device,
        "steps": results,
        "rows": [row for stem in STEMS for row in table(options.out / f"{stem}.json")],
    }
    (options.out / "gpu.json").write_text(json.dumps(report, indent=1) + "\n")
    (options.out / "gpu.md").write_text(page(report))
    print(f"wrote {options.out / 'gpu.json'} and {options.out / 'gpu.md'}")
    return max(result["code"] != 0 for result in results.values())


if __name__ == "__main__":
    raise SystemExit(main())
