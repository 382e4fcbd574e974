"""Images per second of whole QAT-KD training: ``python -m benchmarks.bench_training``.

Every provider trains a student of the same teacher on the same images, augmentation included, in
turns. ``loop`` is what repositories write: torchvision's transforms image by image in a DataLoader,
quantizers as chains of PyTorch's ops, PyTorch's losses and optimizer. ``brevitas`` is that loop
with Brevitas' layers, where they are installed. ``fp32`` is this package's trainer on a student
that is not quantized: what the others cost beside it is the price of quantization.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import VisionDataset
from torchvision.transforms import v2

import daqakd
from daqakd._files import write_json
from daqakd.augment import InputSpec
from daqakd.bench.augment import smooth_noise
from daqakd.bench.kd_loss import eager as eager_kd_loss
from daqakd.bench.step import with_formulas
from daqakd.data import Dataset, Images
from daqakd.data.dataset import make
from daqakd.data.named import NAMED_STATISTICS
from daqakd.quant.layers import QuantConv2d
from daqakd.train.environment import environment
from daqakd.train.loop import Loop

CLASSES, BITS, WARM = 10, 4, 5  # warm: more than what a graph is recorded after
SIDES = {"resnet20": 32, "vgg8": 32, "mobilenet_v2": 64}
FIT = daqakd.TrainConfig(epochs=1, calibration_batches=1, diagnose="off", checkpoint_seconds=1e9)
Run = Callable[[], list[float]]  # the moments at which steps ended


def images(side: int, count: int) -> Dataset:
    """Return smooth noise as a data set, all of it to train on."""
    train = Images(smooth_noise(count, side), torch.arange(count) % CLASSES)
    test = Images(train.pixels[:CLASSES], train.labels[:CLASSES])
    inputs = InputSpec(*NAMED_STATISTICS["cifar10"])
    names = [str(y) for y in range(CLASSES)]
    return make("noise", names, train, test, inputs=inputs, holdout=0.0, seed=0)


@contextmanager
def moments() -> Iterator[list[float]]:
    """Note when each step of the trainer ends."""
    found: list[float] = []
    step = Loop._step

    def noted(loop: Loop, batch: Any) -> None:
        step(loop, batch)
        found.append(time.perf_counter())

    with patch.object(Loop, "_step", noted):
        yield found


def trained(student: nn.Module, teacher: nn.Module, data: Dataset, **options: Any) -> list[float]:
    """Train a copy of a student by this package's trainer."""
    config = daqakd.TrainConfig(**{**vars(FIT), **options})
    with moments() as found:
        daqakd.distill(copy.deepcopy(student), teacher, data, strategy="minimal", config=config)
    return found


class Pictures(VisionDataset):
    """The images as a torchvision data set: one PIL image at a time, transformed.

    ``more`` comes after crop and flip, as the public code has it.
    """

    def __init__(self, data: Dataset, *more: nn.Module) -> None:
        side = data.size
        mean, std = data.inputs.mean, data.inputs.std
        self.data, self.to_pil = data, v2.ToPILImage()
        chain = [v2.RandomCrop(side, padding=side // 8), v2.RandomHorizontalFlip()]
        chain += [
            *more,
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(mean, std),
        ]
        super().__init__("", transform=v2.Compose(chain))

    def __len__(self) -> int:
        return len(self.data.train)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.to_pil(self.data.train.pixels[index])
        return self.transform(image), int(self.data.train.labels[index])


def looped(student: nn.Module, teacher: nn.Module, data: Dataset, batch: int) -> list[float]:
    """Train a copy of a student by a loop as repositories write it."""
    return loop_epoch(copy.deepcopy(student), teacher, Pictures(data), batch)


def loop_epoch(
    student: nn.Module, teacher: nn.Module, pictures: Pictures, batch: int
) -> list[float]:
    """Train a student for an epoch; return the moments at which steps ended."""
    found = []
    student.train()
    device = next(teacher.parameters()).device
    optimizer = torch.optim.Adam(student.parameters(), lr=1e-3)
    workers = torch.get_num_threads()
    for x, y in DataLoader(pictures, batch, shuffle=True, num_workers=workers, drop_last=True):
        x, y = x.to(device), y.to(device)
        with torch.no_grad():
            wanted = teacher(x)
        loss = eager_kd_loss(student(x), wanted, y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # as their progress bars do
        found.append(time.perf_counter())
    return found


def by_brevitas(plain: nn.Module, student: nn.Module) -> nn.Module:
    """Return a copy of a network with Brevitas' layers where the student's are quantized."""
    from brevitas.nn import QuantConv2d as Layer
    from brevitas.quant import Uint8ActPerTensorFloat

    copied = copy.deepcopy(plain)
    names = [name for name, m in student.named_modules() if isinstance(m, QuantConv2d)]
    for name in names:
        old: Any = copied.get_submodule(name)
        sizes = old.in_channels, old.out_channels, old.kernel_size, old.stride, old.padding
        more = {"groups": old.groups, "bias": old.bias is not None}
        widths = {"weight_bit_width": BITS, "input_bit_width": BITS}
        new = Layer(*sizes, **more, **widths, input_quant=Uint8ActPerTensorFloat)
        new.load_state_dict(old.state_dict(), strict=False)
        parent, _, own = name.rpartition(".")
        setattr(copied.get_submodule(parent), own, new)
    return copied


def providers(model: str, data: Dataset, batch: int, device: str) -> dict[str, Run]:
    """Return what is timed; each trains a new copy of its student."""
    teacher = daqakd.models.build(model, CLASSES).to(device).eval().requires_grad_(False)
    plain = copy.deepcopy(teacher).requires_grad_(True)
    found: dict[str, Run] = {}
    own = partial(trained, teacher=teacher, data=data)
    found["fp32"] = partial(own, plain, batch_size=batch)
    for method in ("lsq", "pact", "dorefa", "ewgs"):
        student = daqakd.quantize(plain, weight_bits=BITS, act_bits=BITS, method=method)
        found[method] = partial(own, student, batch_size=batch)
    student = daqakd.quantize(plain, weight_bits=BITS, act_bits=BITS)
    found["lsq-bf16"] = partial(own, student, batch_size=batch, precision="bf16")
    found["fp32-bf16"] = partial(own, plain, batch_size=batch, precision="bf16")
    if device == "cuda":
        for name, one in (("fp32", plain), ("lsq", student)):
            found[f"{name}-graph"] = partial(own, one, batch_size=batch, graph="auto")
            found[f"{name}-compile"] = partial(own, one, batch_size=batch, compile=True)
    daqakd.calibrate(student, torch.randn(8, 3, data.size, data.size, device=device))
    found["loop"] = partial(looped, with_formulas(student), teacher, data, batch)
    if find_spec("brevitas"):
        found["brevitas"] = partial(looped, by_brevitas(plain, student), teacher, data, batch)
    return found


def measure(model: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return a row for every provider: images per second, medians of the turns."""
    batch, data = options.batch, images(SIDES[model], (WARM + options.steps) * options.batch)
    runs = providers(model, data, batch, options.device)
    if unknown := set(options.only or ()) - set(runs):
        known = ", ".join(runs)
        raise SystemExit(f"--only: expected some of {known}, got {' '.join(sorted(unknown))}")
    names = [name for name in runs if not options.only or name in options.only]
    rates: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(options.turns):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            ends = runs[name]()
            rates[name].append(batch * (len(ends) - WARM) / (ends[-1] - ends[WARM - 1]))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    spreads = {k: (max(v) - min(v)) / medians[k] for k, v in rates.items()}
    return [row(model, name, medians) | {"spread": spreads[name]} for name in medians]


def row(model: str, name: str, rates: dict[str, float]) -> dict[str, Any]:
    """Return what is known of a provider."""
    rate = rates[name]
    beside = {f"of_{other}": rate / rates[other] for other in ("loop", "fp32") if other in rates}
    return {"form": model, "provider": name, "images_per_second": rate, **beside}


def main() -> None:
    """Print a table for every model, and leave all in ``training.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(SIDES), choices=list(SIDES))
    parser.add_argument("--only", nargs="+", metavar="PROVIDER", help="all by default")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8, help="of a provider's turn")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for model in options.models:
        found = measure(model, options)
        print(f"\n{model}, {SIDES[model]} x {SIDES[model]}, batch {options.batch}\n")
        print("| provider | images/s | of loop | of fp32 |\n|---|---|---|---|")
        for one in found:
            beside = (f"{one[key]:.2f}" if key in one else "-" for key in ("of_loop", "of_fp32"))
            rate = f"{one['images_per_second']:,.0f}"
            print("|", " | ".join([one["provider"], rate, *beside]), "|", flush=True)
        rows += found
    facts = {"device": options.device, "batch": options.batch, "bits": BITS, "warm": WARM}
    write_json(options.out / "training.json", {**environment(), **facts, "rows": rows})


if __name__ == "__main__":
    main()
