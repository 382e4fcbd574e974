"""What every op is tried on: sizes around vector and block limits, odd layouts, all dtypes."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from daqakd.backends import can_run

BACKENDS = ("reference", "native", "triton", "emulated")
SIMULATED = ("triton", "emulated")  # kernels of a GPU on the CPU: slow, and without float64
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
SIZES = (1, 3, 7, 8, 15, 16, 17, 31, 33, 127, 129, 1023, 1025)


@dataclass(frozen=True)
class Case:
    """A base shape and the view of it that the op sees."""

    id: str
    base: tuple[int, ...]
    view: Callable[[Tensor], Tensor] = lambda x: x

    def make(self, dtype: torch.dtype, device: str = "cpu", scale: float = 1.0) -> Tensor:
        """Return the same normally distributed values on every call."""
        generator = torch.Generator().manual_seed(1 + sum(self.base))
        values = torch.randn(self.base, generator=generator, dtype=torch.float64) * scale
        return self.view(values.to(dtype).to(device))


FLAT = tuple(Case(f"n{size}", (size,)) for size in SIZES)
EMPTY = (Case("empty", (0,)), Case("empty-rows", (0, 3)), Case("empty-columns", (3, 0)))
DENSE = (
    Case("scalar", ()),
    Case("matrix", (17, 33)),
    Case("volume", (2, 3, 5)),
    Case("images", (2, 3, 5, 7)),
    Case("channels-last", (2, 3, 5, 7), lambda x: x.to(memory_format=torch.channels_last)),
    Case("transposed", (17, 33), lambda x: x.t()),
    Case("permuted", (3, 5, 7), lambda x: x.permute(2, 0, 1)),
    Case("misaligned", (130,), lambda x: x[1:]),
)
SPARSE = (
    Case("every-second", (33,), lambda x: x[::2]),
    Case("columns", (9, 8), lambda x: x[:, 1:6]),
    Case("transposed-columns", (8, 9), lambda x: x[1:6].t()[::2]),
    Case("expanded-rows", (1, 7), lambda x: x.expand(5, 7)),
    Case("expanded-columns", (5, 1), lambda x: x.expand(5, 7)),
    Case("expanded-images", (1, 3, 1, 4), lambda x: x.expand(2, 3, 5, 4)),
)
CASES = FLAT + EMPTY + DENSE + SPARSE


def named(values, name: Callable = str) -> list:
    """Give parameters readable ids."""
    return [pytest.param(value, id=name(value)) for value in values]


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


each_case = pytest.mark.parametrize("case", named(CASES, lambda c: c.id))
each_dtype = pytest.mark.parametrize("dtype", named(DTYPES, dtype_name))
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def combinations(**factors) -> list:
    """Return all combinations of ``factors`` (values by readable name), dtypes and backends.

    The interpreter and the emulator are slow: there, those beyond all pairs of factors are too.
    """
    found = []
    for places in itertools.product(*(enumerate(named.items()) for named in factors.values())):
        lone = DTYPES[1 + sum(place for place, _ in places) % 3]
        values, names = [v for _, (_, v) in places], [n for _, (n, _) in places]
        for dtype, backend in itertools.product(DTYPES, BACKENDS):
            marks = pytest.mark.slow if backend in SIMULATED and dtype != lone else ()
            name = "-".join([*names, dtype_name(dtype), backend])
            found.append(pytest.param(*values, dtype, backend, id=name, marks=marks))
    return found


def each_combination(**factors) -> pytest.MarkDecorator:
    """Run the ``combinations`` of factors, dtypes and backends."""
    return pytest.mark.parametrize((*factors, "dtype", "backend"), combinations(**factors))


def require(op: str, backend: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> None:
    """Skip the test, saying why, where ``backend`` cannot run ``op``."""
    reason = can_run(op, backend, device, dtype)
    if reason is not None:
        pytest.skip(f"{op} on {backend}: {reason}")


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def parameter_dtype(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype of quantizer parameters for inputs of ``dtype``."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def axes(x: Tensor) -> list[int | None]:
    """Return None and every axis of ``x``, the last one counted from the end."""
    return [None, *range(x.dim() - 1), *([-1] if x.dim() else [])]


def like_in_other_strides(x: Tensor) -> Tensor:
    """Return normal values with the shape of ``x`` whose strides run the other way."""
    reverse = tuple(range(x.dim()))[::-1]
    backwards = torch.randn(x.permute(reverse).shape, dtype=torch.float64, device=x.device)
    return backwards.permute(reverse).to(x.dtype)


def off_by_one_element(x: Tensor) -> Tensor:
    """Return the same values and strides, where no vector access can start."""
    memory = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    return memory[1:].as_strided(x.shape, x.stride()).copy_(x)


def saved_bytes(function: Callable[[], Tensor]) -> int:
    """Return the memory that ``function`` keeps for backward beyond its output."""
    kept: dict[int, int] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        y = function()
    kept.pop(y.untyped_storage().data_ptr(), None)
    return sum(kept.values())
