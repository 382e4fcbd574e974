"""Convolution, batch norm, ReLU, quantizer under torch.compile: ops kept against formulas inlined.

``python -m benchmarks.compiled_chain lsq``: CPU time of one thread, contestants in random order.
"""

import copy
import random
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import daqakd
from daqakd.backends import use_backend
from daqakd.bench.step import with_formulas

ROUNDS = 80


class Chain(nn.Module):
    """Three convolutions of 16 channels, a shortcut around the second."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1, self.conv2 = (
            nn.Conv2d(16, 16, 3, 1, 1, bias=False) for _ in range(3)
        )
        self.bn0, self.bn1 = nn.BatchNorm2d(16), nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn0(self.conv0(x)))
        y: Tensor = self.conv2(torch.relu(self.bn1(self.conv1(x))) + x)
        return y


def contestants(method: str, x: Tensor) -> dict[str, tuple[nn.Module, str | None]]:
    """Return models by name, each with the backend it is forced to."""
    chain = Chain()
    student = daqakd.quantize(chain, weight_bits=4, act_bits=4, method=method, first_last="same")
    daqakd.calibrate(student, x).train()
    found: dict[str, tuple[nn.Module, str | None]] = {"fp32": (chain.train(), None)}
    found["ops"] = copy.deepcopy(student), "native"
    found["table"] = copy.deepcopy(student), None
    if method == "lsq":
        found["formula"] = with_formulas(student), None
    return found


def step_of(model: nn.Module, backend: str | None, x: Tensor) -> Callable[[], None]:
    """Return forward and backward of the compiled model."""
    compiled = torch.compile(model, fullgraph=True)

    def step() -> None:
        with use_backend(backend):
            model.zero_grad()
            compiled(x).sum().backward()

    return step


def main(method: str) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    x = torch.randn(32, 16, 32, 32)
    steps = {name: step_of(*one, x) for name, one in contestants(method, x).items()}
    for step in steps.values():
        step()
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(ROUNDS):
        for name in random.sample(list(steps), len(steps)):
            start = time.thread_time()
            steps[name]()
            taken[name].append(time.thread_time() - start)
    for name, seconds in taken.items():
        lowest, quarter, median = (sorted(seconds)[int(ROUNDS * q)] for q in (0.05, 0.25, 0.5))
        print(f"{name:8} {1e3 * lowest:7.2f} {1e3 * quarter:7.2f} {1e3 * median:7.2f} ms")


if __name__ == "__main__":
    main(sys.argv[1])
