"""A whole ranking, start-up included: ``python -m benchmarks.bench_ranking``.

In a process of its own: seven strategies, all images, a ResNet-20. Images are made up unless
``--data`` names a set. The first run compiles what is compiled at first use; the exit code says
whether the last one was in time. ``passes`` is what the teacher's own passes take of it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from daqakd import models
from daqakd._files import write_json
from daqakd.augment import PAPER
from daqakd.bench.augment import smooth_noise
from daqakd.data import load, prepare
from daqakd.data.named import NAMED_STATISTICS, data_root
from daqakd.data.prepared import FORMAT, METADATA_FILE, labels_path, pixels_path
from daqakd.ranking import rank
from daqakd.train import TrainConfig, teach
from daqakd.train.environment import environment
from daqakd.train.store import load_model, read_model_file, save_model

CLASSES, SIDE, MADE_UP = 10, 32, 50_000
LIMIT = 10.0  # seconds for 50,000 images on a GPU
TAUGHT = TrainConfig(epochs=2, batch_size=32, lr=3e-3)  # enough to be far above chance


def made_up_split(root: Path, split: str, count: int) -> dict[str, object]:
    """Write a split of smooth noise whose tint tells the class; return what is noted of it."""
    labels = torch.arange(count) % CLASSES
    tint = (40 * torch.randn(CLASSES, 3, generator=torch.Generator().manual_seed(0))).int()
    tinted = smooth_noise(count, SIDE).int() + tint[labels, :, None, None]
    pixels = tinted.clamp(0, 255).to(torch.uint8).numpy()
    np.save(pixels_path(root, split), pixels)
    np.save(labels_path(root, split), labels.numpy())
    hashes = sha256(pixels.data), sha256(labels_path(root, split).read_bytes())
    return {
        "images": count,
        "sha256": hashes[0].hexdigest(),
        "labels_sha256": hashes[1].hexdigest(),
    }


def made_up(root: Path, num_images: int) -> Path:
    """Write a prepared data set that is made up."""
    root.mkdir(parents=True, exist_ok=True)
    counts = {"train": num_images, "test": 10 * CLASSES}
    mean, std = NAMED_STATISTICS["cifar10"]
    facts: dict[str, object] = {"format": FORMAT, "name": "made-up"}
    facts |= {"classes": [str(c) for c in range(CLASSES)]}
    facts |= {"size": SIDE, "mean": mean, "std": std, "flip": True}
    facts |= {"splits": {split: made_up_split(root, split, counts[split]) for split in counts}}
    write_json(root / METADATA_FILE, facts)
    return root


def taught(root: Path, data: Path, device: str, least_images: int = 0) -> Path:
    """Train a teacher on at most 4,096 images, each as often as makes ``least_images``."""
    dataset = load(data)
    some = dataset.fit[torch.randperm(len(dataset.fit))[:4096]]
    dataset = replace(dataset, fit=some, heldout=dataset.heldout[:0])
    config = replace(TAUGHT, epochs=max(TAUGHT.epochs, -(-least_images // len(some))))
    result = teach(models.build("resnet20", dataset.num_classes).to(device), dataset, config=config)
    save_model(root / "teacher.safetensors", result.model, "resnet20", dataset)
    return root / "teacher.safetensors"


class Passes:
    """Measures the forward passes of a network, wherever they are called from."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.on_gpu, self.marks = device == "cuda", list[Any]()
        network.register_forward_pre_hook(lambda *_: self._mark())
        network.register_forward_hook(lambda *_: self._mark())

    def _mark(self) -> None:
        mark: Any = torch.cuda.Event(enable_timing=True) if self.on_gpu else time.perf_counter()
        if self.on_gpu:
            mark.record()
        self.marks.append(mark)

    def seconds(self) -> float:
        """Return their sum, once a GPU has finished."""
        pairs = zip(self.marks[::2], self.marks[1::2], strict=True)
        if not self.on_gpu:
            return sum(end - begin for begin, end in pairs)
        torch.cuda.synchronize()
        return sum(begin.elapsed_time(end) for begin, end in pairs) / 1e3


def one_ranking(options: argparse.Namespace) -> None:
    """Rank, and print the seconds of start-up, ranking and forward passes."""
    file, dataset = read_model_file(options.teacher), load(options.data)
    dataset = dataset.with_inputs(**file.inputs)
    network = load_model(file, "resnet20", dataset.num_classes).to(options.device)
    passes, dtype = Passes(network, options.device), getattr(torch, options.teacher_dtype)
    ready = time.time()
    found = rank(network, dataset, images=options.images, teacher_dtype=dtype)
    parts = {"start": ready - options.child, "rank": time.time() - ready}
    print(found.table, file=sys.stderr)
    print(json.dumps({**parts, "passes": passes.seconds()}))


def timed(name: str, data: Path, teacher: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Rank in a new process; return its wall time and what that consists of."""
    asked = ["--data", data, "--teacher", teacher, "--device", options.device]
    asked += ["--teacher-dtype", options.teacher_dtype]
    some = [] if options.images is None else ["--images", options.images]
    command = [sys.executable, "-m", "benchmarks.bench_ranking", *map(str, asked + some)]
    command += ["--child", repr(time.time())]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    parts = json.loads(done.stdout.splitlines()[-1])
    row = {"data": name, "wall_seconds": parts["start"] + parts["rank"]}
    return {**row, **{f"{k}_seconds": v for k, v in parts.items()}}


def main() -> int:
    """Print a row per run, leave them in ``ranking.json``; return 1 when the last is too slow."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--images", type=int, help="default: all, or 50,000 made-up ones")
    parser.add_argument("--data", help="a data set by name or folder")
    parser.add_argument("--teacher", type=Path)
    parser.add_argument("--teacher-dtype", choices=["float32", "bfloat16"], default="float32")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    parser.add_argument("--child", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        one_ranking(options)
        return 0
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        name, made = options.data or "made-up", root / "data"
        data = prepare(name, made) if options.data else made_up(made, options.images or MADE_UP)
        known = data_root() / "teachers" / f"{name}_resnet20.safetensors"
        teacher = options.teacher or (
            known if known.exists() else taught(root, data, options.device)
        )
        for number in range(options.runs):
            rows.append({"run": number + 1, **timed(name, data, teacher, options)})
            print(json.dumps(rows[-1]), flush=True)
            record = {**environment(), "strategies": PAPER, "rows": rows}
            write_json(options.out / "ranking.json", record)
    last = rows[-1]["wall_seconds"]
    print(f"{len(PAPER)} strategies on {name} images: {last:.1f} s (aim on a GPU: {LIMIT:.0f} s)")
    ratio = rows[-1]["rank_seconds"] / rows[-1]["passes_seconds"]
    print(f"the ranking takes {ratio:.3f} times the teacher's passes in it")
    return int(options.device == "cuda" and last >= LIMIT)


if __name__ == "__main__":
    sys.exit(main())
