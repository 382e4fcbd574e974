"""A training step, a ranking and a whole run beside what people do without this package.

``python -m benchmarks.bench_end_to_end [--quick] --out DIR``: ``loop`` is plain PyTorch with
torchvision's loader, image by image, two passes per strategy for a ranking; ``published`` ranks as
the paper's public code does, by 22 (:mod:`benchmarks.published`), and trains as ``loop`` does.
Providers take turns; a ranking is timed where its scores agree with ours, a run where its student
is far above chance. Images are made up unless ``--data`` names a set.
"""

import argparse
import copy
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

import daqakd
from daqakd._files import read_json
from daqakd.bench.book import write_book
from daqakd.bench.measure import Measurement
from daqakd.bench.step import with_formulas
from daqakd.cli.main import main as command
from daqakd.data import Dataset, load, prepare
from daqakd.train.environment import environment
from daqakd.train.evaluate import accuracy
from daqakd.train.store import load_model, read_model_file

from . import bench_training
from .bench_ranking import made_up, taught
from .bench_training import Pictures, loop_epoch
from .published import Passes, published_score, score, transforms_of

BITS, BATCH, EPOCHS = 4, 64, 1
IMAGES, QUICK_IMAGES = 5000, 200
TAUGHT_IMAGES = 4096  # seen by the teacher: fewer, and its scores are noise
STRATEGIES = ("minimal", "trivialaugment", "randaugment", "autoaugment-cifar", "augmix")
OURS = "daqakd"
SCORES_APART = 0.1  # nats: every ranking draws its own augmentations
Row = dict[str, Any]
Scorer = Callable[[Passes], float]
SCORERS: dict[str, Scorer] = {"loop": score, "published": published_score}


@dataclass(frozen=True)
class Setting:
    """What all providers work on.

    Args:
        folder: a prepared data set.
        teacher: its teacher's file, a ResNet-20.
        strategies: which are ranked; a subset of ``STRATEGIES``.
        device: ``"cpu"`` or ``"cuda"``.
        turns: how often each provider is timed.
        steps: training steps of a turn.
    """

    folder: Path
    teacher: Path
    strategies: tuple[str, ...]
    device: str
    turns: int
    steps: int

    def data(self) -> Dataset:
        """Return the data set, nothing held out."""
        return load(self.folder, holdout=0)

    def network(self) -> nn.Module:
        """Return the teacher in evaluation mode."""
        file = read_model_file(self.teacher)
        found = load_model(file, "resnet20", self.data().num_classes).to(self.device)
        return found.eval().requires_grad_(False)


def timed(runs: dict[str, Callable[[], Any]], turns: int) -> tuple[dict[str, list[float]], Row]:
    """Run in turns; return the seconds of each and what its last turn gave."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: Row = {}
    for _ in range(turns):
        for name, run in runs.items():
            begin = time.perf_counter()
            results[name] = run()
            seconds[name].append(time.perf_counter() - begin)
            print(f"  {name}: {seconds[name][-1]:.1f} s", flush=True)
    return seconds, results


def row(op: str, form: str, name: str, images: int, times: list[float], note: str = "") -> Row:
    """Return a provider's row; what was not right has a note and no time."""
    median = statistics.median(times)
    spread = (max(times) - min(times)) / median
    right = not note
    return Measurement(
        op=op,
        elements=images,
        dtype="float32",
        form=form,
        provider=name,
        seconds=median if right else None,
        of_roofline=None,
        images_per_second=images / median if right else None,
        spread=spread if right else None,
        note=note,
    ).record()


def training(setting: Setting) -> list[Row]:
    """Return the rows of a training step of a W4A4 ResNet-20 with its teacher."""
    options = argparse.Namespace(
        batch=BATCH,
        steps=setting.steps,
        turns=setting.turns,
        device=setting.device,
        only=["fp32", "lsq", "loop"],
    )
    names = {"lsq": OURS, "loop": "loop", "fp32": f"{OURS}-fp32"}
    rows = []
    for found in bench_training.measure("resnet20", options):
        seconds = BATCH / found["images_per_second"]
        one = row("training_step", "resnet20", names[found["provider"]], BATCH, [seconds])
        rows.append(one | {"spread": found["spread"]})
    return rows


def our_ranking(setting: Setting, teacher: nn.Module, data: Dataset) -> dict[str, float]:
    """Rank by this package; return the scores as the others compute them."""
    found = daqakd.rank(teacher, data, strategies=setting.strategies)
    return {one["name"]: one["score_plugin"] for one in found.records()}


def their_ranking(
    setting: Setting, teacher: nn.Module, data: Dataset, scorer: Scorer
) -> dict[str, float]:
    """Rank strategy by strategy with torchvision's loader."""
    return {name: scorer(Passes(teacher, data, name)) for name in setting.strategies}


def apart(ours: dict[str, float], theirs: dict[str, float]) -> str:
    """Return which score differs from ours by more than the draws explain, or nothing."""
    far = [n for n in ours if not abs(ours[n] - theirs[n]) <= SCORES_APART]
    told = (f"{n} has the score {theirs[n]:.3f}, ours is {ours[n]:.3f}" for n in far)
    return "; ".join(told)


def ranking(setting: Setting) -> list[Row]:
    """Return the rows of a ranking of all training images."""
    teacher, data = setting.network(), setting.data()
    runs: dict[str, Callable[[], Any]] = {OURS: partial(our_ranking, setting, teacher, data)}
    for name, scorer in SCORERS.items():
        runs[name] = partial(their_ranking, setting, teacher, data, scorer)
    seconds, scores = timed(runs, setting.turns)
    form = f"{len(setting.strategies)} strategies"
    return [
        row("ranking", form, name, len(data.train), times, apart(scores[OURS], scores[name]))
        for name, times in seconds.items()
    ]


def our_run(setting: Setting) -> float:
    """Rank, train, evaluate and report by ``daqakd run``; return the student's accuracy."""
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        asked = ["--teacher", setting.teacher, "--out", folder, "--holdout", 0.0]
        asked += ["--strategies", *setting.strategies, "--epochs", EPOCHS, "--batch-size", BATCH]
        asked += ["-w", BITS, "-a", BITS, "--device", setting.device]
        if command(["run", str(setting.folder), *map(str, asked)]):
            raise SystemExit("daqakd run failed")
        found: float = read_json(Path(folder) / "eval.json")["student_accuracy"]
    return found


def their_run(setting: Setting, scorer: Scorer) -> float:
    """Rank, train and evaluate by a plain loop; return the student's accuracy."""
    teacher, data = setting.network(), setting.data()
    scores = their_ranking(setting, teacher, data, scorer)
    best = min(scores, key=lambda name: scores[name])
    plain = copy.deepcopy(teacher).requires_grad_(True)
    student = daqakd.quantize(plain, weight_bits=BITS, act_bits=BITS)
    pictures = Pictures(data, *transforms_of(best))
    first = torch.stack([pictures[i][0] for i in range(min(BATCH, len(pictures)))])
    daqakd.calibrate(student, first.to(setting.device))
    student = with_formulas(student)
    for _ in range(EPOCHS):
        loop_epoch(student, teacher, pictures, BATCH)
    return accuracy(student.eval(), data.test, data.inputs, torch.device(setting.device))


def whole(setting: Setting) -> list[Row]:
    """Return the rows of a whole run: the ranking, an epoch of training, the test images."""
    runs: dict[str, Callable[[], Any]] = {OURS: partial(our_run, setting)}
    runs |= {name: partial(their_run, setting, scorer) for name, scorer in SCORERS.items()}
    seconds, found = timed(runs, setting.turns)
    data = setting.data()
    least = 2 / data.num_classes
    form = f"{len(setting.strategies)} strategies"
    notes = {n: "" if a > least else f"its student's accuracy is {a:.2f}" for n, a in found.items()}
    return [
        row("run", form, name, len(data.train), times, notes[name]) | {"accuracy": found[name]}
        for name, times in seconds.items()
    ]


PARTS: dict[str, Callable[[Setting], list[Row]]] = {
    "training_step": training,
    "ranking": ranking,
    "run": whole,
}


def measure(
    device: str, quick: bool, images: int, data: str | None, keep: Callable[[list[Row]], None]
) -> list[Row]:
    """Measure all parts; ``keep`` gets all rows after each."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        made = prepare(data, root / "data") if data else made_up(root / "data", images)
        teacher = taught(root, made, device, TAUGHT_IMAGES)
        setting = Setting(made, teacher, STRATEGIES, device, turns=3, steps=8)
        if quick:
            setting = replace(setting, strategies=STRATEGIES[:2], turns=1, steps=2)
        for name, part in PARTS.items():
            print(name, flush=True)
            rows += part(setting)
            keep(rows)
    return rows


def main() -> None:
    """Measure, and leave ``end_to_end.json`` and ``.csv``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="two strategies, one turn")
    parser.add_argument("--images", type=int, default=IMAGES, help="made-up ones")
    parser.add_argument("--data", help="a data set by name or folder")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    facts = {**environment(), "device": options.device}

    def keep(rows: list[Row]) -> None:
        write_book(options.out / "end_to_end.json", facts | {"rows": rows})

    measure(options.device, options.quick, options.images, options.data, keep)


if __name__ == "__main__":
    main()
