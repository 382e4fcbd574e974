"""Students as ONNX files in onnxruntime, beside full precision there and in PyTorch; CPU.

``python -m benchmarks.bench_onnx [--rounds N] [--batch N] [--models NAME ...] [--out FILE.md]``:
images per second at 224 x 224, medians of rounds in which all contestants take turns, each at
another place. Weights are random: only speed and agreement with the student are told.
"""

import argparse
import statistics
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock

import daqakd
from daqakd.export import OnnxModel


class AddingBlock(BasicBlock):
    """A ResNet's block whose sum is a module, so that a student quantizes what it adds."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add = daqakd.nn.QuantAdd()

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        identity = x if self.downsample is None else self.downsample(x)
        out: Tensor = self.relu(self.add(y, identity))
        return out


class AddingResidual(InvertedResidual):
    """MobileNetV2's block, likewise."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add = daqakd.nn.QuantAdd() if self.use_res_connect else None

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output."""
        y: Tensor = self.conv(x)
        return y if self.add is None else self.add(x, y)


def resnet18(**kwargs: Any) -> nn.Module:
    """Return ResNet-18 with sums to quantize."""
    return torchvision.models.ResNet(AddingBlock, [2, 2, 2, 2], **kwargs)


def mobilenet_v2(**kwargs: Any) -> nn.Module:
    """Return MobileNetV2 with sums to quantize."""
    return torchvision.models.MobileNetV2(block=AddingResidual, **kwargs)


MODELS = {"resnet18": resnet18, "mobilenet_v2": mobilenet_v2}
PLAIN = {"resnet18": torchvision.models.resnet18, "mobilenet_v2": torchvision.models.mobilenet_v2}
CLASSES = 1000
# of students: weight bits, activation bits, and the opset, below 21 for 4-bit weights as int8
WIDTHS = {"W8A8": (8, 8, 21), "W4A8": (4, 8, 20), "W4A4": (4, 4, 21)}


@dataclass
class Contestant:
    """Something that gives logits, and what is told of it."""

    name: str
    run: Callable[[Tensor], Tensor]
    size: int = 0
    integer: str = "-"
    apart: str = "-"


def trained_like(model: nn.Module) -> nn.Module:
    """Give BatchNorms statistics of their own, so that folding has something to do."""
    for norm in [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]:
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, 0, 0.2)
    model.train()
    with torch.no_grad():
        for _ in range(2):
            model(torch.randn(8, 3, 224, 224))
    return model.eval()


def contestants(name: str, folder: Path, images: Tensor) -> list[Contestant]:
    """Return PyTorch and onnxruntime in full precision, and the students in onnxruntime."""
    torch.manual_seed(0)
    model = trained_like(MODELS[name](num_classes=CLASSES))
    path = folder / f"{name}.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(model, (images,), path, dynamo=True, external_data=False, verbose=False)
    wide = images.contiguous(memory_format=torch.channels_last)
    last = trained_like(MODELS[name](num_classes=CLASSES)).to(memory_format=torch.channels_last)
    found = [
        Contestant("PyTorch fp32", lambda x: model(x)),
        Contestant("PyTorch fp32, channels last", lambda x: last(wide)),
        Contestant("onnxruntime fp32", OnnxModel(path), path.stat().st_size),
    ]
    plain = PLAIN[name](num_classes=CLASSES).eval()
    plain.load_state_dict(model.state_dict())
    found += [student(name, plain, width, folder, images) for width in WIDTHS]
    whole = [student(f"{name}-add", model, width, folder, images) for width in ("W8A8", "W4A8")]
    for one in whole:
        one.name += ", sums too"
    return [*found, *whole]


def student(name: str, model: nn.Module, width: str, folder: Path, images: Tensor) -> Contestant:
    """Return a quantized model's file in onnxruntime."""
    weight_bits, act_bits, opset = WIDTHS[width]
    made = daqakd.quantize(model, weight_bits=weight_bits, act_bits=act_bits)
    daqakd.calibrate(made, [images])
    path, optimized = folder / f"{name}-{width}.onnx", folder / f"{name}-{width}-run.onnx"
    daqakd.export_onnx(made.eval(), path, images, opset=opset)
    run = OnnxModel(path)
    with torch.no_grad():
        wanted = made(images)
    apart = ((run(images) - wanted).abs().max() / wanted.abs().max()).item()
    integer = _integer_layers(path, optimized)
    return Contestant(f"onnxruntime {width}", run, path.stat().st_size, integer, f"{apart:.1e}")


def _integer_layers(path: Path, optimized: Path) -> str:
    """Return how many of a file's convolutions and products onnxruntime runs on integers."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(optimized)
    onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(optimized).graph.node)
    whole = sum(n for kind, n in kinds.items() if kind.startswith(("QLinearConv", "QGemm")))
    rest = sum(kinds[kind] for kind in ("Conv", "FusedConv", "Gemm", "MatMul", "FusedMatMul"))
    return f"{whole} of {whole + rest}"


def measure(found: list[Contestant], images: Tensor, rounds: int) -> list[float]:
    """Return the images per second of each."""
    times: list[list[float]] = [[] for _ in found]
    with torch.inference_mode():
        for turn in range(rounds + 1):
            for place in range(len(found)):
                number = (place + turn) % len(found)
                begin = time.perf_counter()
                found[number].run(images)
                times[number].append(time.perf_counter() - begin)
    return [len(images) / statistics.median(one[1:]) for one in times]


def rows(name: str, rounds: int, batch: int) -> list[str]:
    """Return the lines of one model's table."""
    images = torch.randn(batch, 3, 224, 224)
    with tempfile.TemporaryDirectory() as folder:
        found = contestants(name, Path(folder), images)
        speeds = measure(found, images, rounds)
    base = speeds[[one.name for one in found].index("onnxruntime fp32")]
    return [
        f"| {name} | {one.name} | {speed:.1f} | {speed / base:.2f} | {one.integer}"
        f" | {f'{one.size / 1e6:.1f}' if one.size else '-'} | {one.apart} |"
        for one, speed in zip(found, speeds, strict=True)
    ]


HEADER = (
    "| model | contestant | images/s | of onnxruntime fp32 | layers on integers | MB"
    " | apart from the student |\n|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--models", nargs="+", choices=[*MODELS], default=[*MODELS])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [HEADER]
    print(HEADER)
    for name in options.models:
        for line in rows(name, options.rounds, options.batch):
            print(line, flush=True)
            lines.append(line)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
