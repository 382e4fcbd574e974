"""Quantized values as packed codes and back; a form is the number of bits."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor

from .._ops import METHOD_CODES, overload, slot_bits
from ..backends import can_run
from .measure import Case, Inputs, Provider
from .quantizer import compiled
from .roofline import Traffic

STEP = 0.25


def eager(y: Tensor, step: Tensor, bits: int) -> Tensor:
    """Pack and unpack by ATen ops."""
    slot = slot_bits(bits)
    codes = torch.round(y / step).to(torch.uint8).view(-1, 8 // slot)
    shifts = torch.arange(0, 8, slot, device=y.device, dtype=torch.uint8)
    packed = (codes << shifts).sum(1, dtype=torch.uint8)
    codes = (packed[:, None] >> shifts) & (2**slot - 1)
    values: Tensor = codes.view(-1) * step
    return values.to(y.dtype)


def ours(y: Tensor, step: Tensor, bits: int, backend: str) -> Tensor:
    """Pack and unpack by our ops."""
    grid = step, METHOD_CODES["lsq"], bits, False
    codes = overload("codes_pack", backend)(y, *grid)
    values: Tensor = overload("codes_unpack", backend)(codes, *grid, y.numel(), y.dtype)
    return values


class CodesBenchmark:
    """What a layer with ``save="codes"`` does to its input, forward and backward."""

    op = "codes"
    forms = ("4", "8")
    size_unit: Literal["elements"] = "elements"

    def providers(self, device: str) -> dict[str, Provider]:
        """Return the providers that can run on ``device``, ours last."""
        found: dict[str, Provider] = {"eager": eager, "compile": compiled(eager)}
        for backend in ("reference", "triton", "native"):
            if can_run("codes", backend, device, torch.float32) is None:
                found[backend] = partial(ours, backend=backend)
        return found

    def case(self, size: int, dtype: torch.dtype, form: str, device: str) -> Case:
        """Return the round trip of quantized values."""
        bits = int(form)
        return Case(
            op=self.op,
            numel=size,
            dtype=dtype,
            form=form,
            device=device,
            bind=lambda provider: partial(_run, provider, bits),
            make=partial(_make, size, dtype, bits, device),
            verify=_verify,
            traffic=Traffic(2, extra_bytes=2 * slot_bits(bits) / 8),
        )


def _make(size: int, dtype: torch.dtype, bits: int, device: str) -> Inputs:
    step = torch.tensor(STEP, device=device)
    return (torch.randint(2**bits, (size,), device=device) * step).to(dtype), step


def _run(provider: Provider, bits: int, y: Tensor, step: Tensor) -> Tensor:
    values: Tensor = provider(y, step, bits)
    return values


def _verify(values: Tensor, inputs: Inputs) -> str | None:
    return None if torch.equal(values, inputs[0]) else "its values are wrong"


CODES = CodesBenchmark()
