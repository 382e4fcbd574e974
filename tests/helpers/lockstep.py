"""One training step on two backends with the same rounding decisions, compared call by call.

A single value on a rounding tie may go either way, and at 2 bits that alone can change a network's
logits beyond any tolerance. So a step is recorded on one backend; on the other, a value may differ
only if its input moved by ``BAND`` would give it, and the step goes on with the recorded value.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from . import tolerance

BAND = 1e-5  # of the largest input: what float32 layers in another order of summation may move


def is_forward(op: Any) -> bool:
    return op.namespace == "daqakd" and "forward" in op.__name__


class Record(TorchDispatchMode):
    """Keep the name and the results of every forward op of ``backend``."""

    def __init__(self, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.calls: list[tuple[str, Any]] = []

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        result = op(*args, **(kwargs or {}))
        if is_forward(op):
            assert op._overloadname == self.backend
            self.calls.append((str(op.overloadpacket), result))
        return result


class Replay(TorchDispatchMode):
    """Run ``backend``, holding every forward op against a record, with its values on ties."""

    def __init__(self, backend: str, record: Record) -> None:
        super().__init__()
        self.backend = backend
        self.calls = iter(record.calls)
        self.flips = 0

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        if not is_forward(op):
            return op(*args, **(kwargs or {}))
        assert op._overloadname == self.backend
        name, recorded = next(self.calls)
        assert name == str(op.overloadpacket)
        return self.meet(lambda x: op(x, *args[1:], **(kwargs or {})), args[0], recorded)

    def meet(self, run: Callable[[Any], Any], x: Any, recorded: Any) -> Any:
        """Return what ``run`` gives for ``x``, a tensor or a list, with the record's tie values."""
        own, structure = tree_flatten(run(x))
        below, above = (tree_flatten(run(tree_map(moved(by), x)))[0] for by in (-BAND, BAND))
        found = zip(tree_flatten(recorded)[0], own, below, above, strict=True)
        return tree_unflatten([self.value(*leaves) for leaves in found], structure)

    def value(self, recorded: Tensor, own: Tensor, below: Tensor, above: Tensor) -> Tensor:
        """Return ``own`` with the recorded values where the input's neighbourhood has them."""
        if not own.is_floating_point():  # packed masks: compared bit for bit by the ops' tests
            return own
        floor = tolerance.VALUE_FLOORS[own.dtype] * own.abs().clamp(min=1.0)
        low, high = torch.minimum(below, above) - floor, torch.maximum(below, above) + floor
        assert bool(((recorded >= low) & (recorded <= high)).all()), "wrong away from every tie"
        flipped = (recorded - own).abs() > floor
        count, most = int(flipped.sum()), max(1, int(tolerance.MOST_FLIPS * own.numel()))
        assert count <= most, f"{count} flips among {own.numel()} values, at most {most} allowed"
        self.flips += count
        return torch.where(flipped, recorded, own)

    def finish(self) -> None:
        """Require that the record was used up."""
        assert next(self.calls, None) is None


def moved(by: float) -> Callable[[Tensor], Tensor]:
    """Return a function that moves a tensor by a part of its largest magnitude."""
    return lambda x: x + by * x.abs().max()
