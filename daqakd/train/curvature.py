"""EWGS's delta from the trace of the loss's Hessian [EWGS], by Hutchinson's method."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from .._arguments import check_module
from .._errors import InputError, seen
from ..augment.draws import check_seed, philox
from ..quant.surrogate import Key, Surrogate, updated_quantizers

ITERATIONS, TOLERANCE = 50, 1e-3
DEVIATIONS = 3  # standard deviations that stand for the largest gradient
EPSILON = {torch.float32: 2.0**-10, torch.float64: 2.0**-17}  # of values in [0, 1]
CURVATURE, NOISE = 1 << 30, 1 << 29  # slots on: one per batch and iteration; one per batch


@contextmanager
def _undisturbed(student: nn.Module) -> Iterator[None]:
    """Give back buffers and random state after the block, and let nothing be compiled in it."""
    stores = [m._buffers for m in student.modules()]
    before = [(store, name, b) for store in stores for name, b in store.items()]
    kept = [None if b is None else b.detach().clone() for *_, b in before]
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng())
        if "torch._dynamo" in sys.modules:
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(torch.enable_grad())
        try:
            for quantizer in updated_quantizers(student).values():
                quantizer.delta.zero_()  # or it would scale slopes
            yield
        finally:
            with torch.no_grad():
                for (store, name, buffer), value in zip(before, kept, strict=True):
                    store[name] = buffer
                    if buffer is not None and value is not None:
                        buffer.copy_(value)


def _mean_over_ranks(values: Tensor) -> Tensor:
    if dist.is_initialized():
        dist.all_reduce(values)
        values /= dist.get_world_size()
    return values


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _signs(like: Tensor, seed: int, epoch: int, tensor: int, slot: int) -> Tensor:
    """Return independent draws of -1 and 1 of the shape of ``like``, 128 from each index."""
    indices = torch.arange(-(-like.numel() // 128), device=like.device)
    words = philox(seed, epoch, indices + (((_rank() << 20) + tensor) << 32), slot)
    bits = (words[..., None] >> torch.arange(32, device=like.device)) & 1
    return (2 * bits - 1).flatten()[: like.numel()].view(like.shape).to(like.dtype)


class _Estimate:
    """The deltas of one batch.

    Args:
        surrogate: of the student, in place.
        loss_of: returns the loss; every call draws the same.
        draw: returns signs for a tensor, its number and the number of an iteration.
    """

    def __init__(
        self,
        surrogate: Surrogate,
        loss_of: Callable[[], Tensor],
        draw: Callable[[Tensor, int, int], Tensor],
    ) -> None:
        self.surrogate, self.loss_of, self.draw = surrogate, loss_of, draw
        self.gradients = surrogate.gradients(loss_of)
        self.numbers = {key: i for i, key in enumerate(self.gradients)}
        self.keys: dict[Any, list[Key]] = {}
        for key in self.gradients:
            self.keys.setdefault(key.quantizer, []).append(key)

    def _samples(self, active: list[Any], iteration: int) -> Tensor:
        """Return v^T H v for the quantizers: all are shifted by plus, then by minus epsilon v."""
        shifts = {}
        for key in (key for one in active for key in self.keys[one]):
            like = self.gradients[key]
            signs = self.draw(like, self.numbers[key], iteration)
            shifts[key] = signs.mul_(EPSILON[like.dtype])
        sums: dict[Any, Tensor | float] = dict.fromkeys(active, 0.0)
        for sign in (1, -1):
            own = {key: (sign * x).requires_grad_() for key, x in shifts.items()}
            self.surrogate.shifts = own
            for key, g in self.surrogate.gradients(self.loss_of).items():
                signed = (own[key].detach() * g).sum(dtype=torch.float64)  # exact products
                sums[key.quantizer] += signed / (2 * EPSILON[g.dtype] ** 2)
        return _mean_over_ranks(torch.stack([torch.as_tensor(sums[one]) for one in active]))

    def traces(self) -> dict[Any, float]:
        """Return the means of the samples, of each quantizer until they hardly move."""
        active = list(self.keys)
        means = dict.fromkeys(active, 0.0)
        for iteration in range(ITERATIONS if active else 0):
            samples = self._samples(active, iteration).tolist()
            moving = []
            for one, sample in zip(active, samples, strict=True):
                before = means[one]
                means[one] += (sample - before) / (iteration + 1)
                if not abs(means[one] - before) <= TOLERANCE * abs(before):
                    moving.append(one)
            active = moving
            if not active:
                break
        return means

    def deltas(self) -> dict[Any, float]:
        """Return ``max(0, (Tr(H) / n) / (3 std(g)))``; 0 where no gradient differs from others."""
        found = {}
        for one, trace in self.traces().items():
            g = torch.cat([self.gradients[key].flatten() for key in self.keys[one]]).double()
            spread = DEVIATIONS * g.std().item() if g.numel() > 1 else 0.0
            found[one] = max(0.0, trace / g.numel() / spread) if spread else 0.0
            if not math.isfinite(trace) or not math.isfinite(spread):
                found[one] = math.nan
        return found


def update_delta(
    student: nn.Module,
    loss_of_batch: Callable[[Any], Tensor],
    batches: Iterable[Any],
    *,
    seed: int = 0,
    epoch: int = 0,
) -> dict[str, float]:
    """Set the deltas of a student's EWGS quantizers by the curvature of its loss.

    ``delta = max(0, (Tr(H) / n) / (3 std(g)))`` for each quantizer, as the mean over the batches
    and ranks: H and g are Hessian and gradient of the loss with respect to what the quantizer
    rounds to, n values in [0, 1] [EWGS]. Rounding counts as the identity in both, and
    delta itself as 0, so that the result does not depend on the deltas of before; ReLU, ReLU6,
    leaky ReLU and max-pooling over images count as linear where they are.

    The trace is Hutchinson's: the mean of ``v^T H v`` over vectors v of random signs, until it
    moves by less than a thousandth, 50 vectors at most; ``H v`` is a central difference of
    gradients. All tensors are shifted at once, each by signs of its own, so that an iteration
    costs two passes, however many layers there are. ``v_i^T H_ij v_j``, which two tensors then add
    to each other's samples, has the mean 0: that costs variance, and no bias. A tensor whose trace
    has settled is shifted no more. A batch takes up to 101 forward and backward passes.

    Nothing else changes: running statistics, gradients, random state, mode and hooks are as before.
    BatchNorm uses the statistics of a batch in training mode, as in training: call it there.

    Args:
        student: what :func:`daqakd.quantize` returned with ``delta="hessian"``, calibrated.
        loss_of_batch: takes one of ``batches``, returns the loss, 0-dim float32 or float64, of the
            student itself: without DDP around it, without autocast.
        batches: any number, 3 in the paper; under torch.distributed, each rank its share of them.
        seed: of the signs.
        epoch: likewise: another one draws others.

    Returns:
        The deltas by the quantizers' names; one that no batch has reached keeps its own.

    Raises:
        InputError: no quantizer has such a delta, there is no batch, or a loss is not finite.
    """
    check_module("student", student)
    named = updated_quantizers(student)
    _check(named, loss_of_batch, check_seed(seed), epoch)
    sums: dict[Any, list[float]] = {one: [] for one in named.values()}
    with _undisturbed(student):
        number = -1
        for number, batch in enumerate(batches):
            for one, delta in _of_batch(student, loss_of_batch, batch, seed, epoch, number).items():
                sums[one].append(delta)
    if number < 0:
        raise InputError("batches: there is none; pass at least one")
    return _write(named, sums)


def _check(named: dict[str, Any], loss_of_batch: object, seed: int, epoch: object) -> None:
    if not named:
        raise InputError(
            "student: no quantizer has a delta to update; make it by"
            " quantize(..., method='ewgs', delta='hessian')"
        )
    if not callable(loss_of_batch):
        raise InputError(f"loss_of_batch: expected a function, got {seen(loss_of_batch)}")
    if isinstance(epoch, bool) or not isinstance(epoch, int) or epoch < 0:
        raise InputError(f"epoch: expected an integer from 0 on, got {seen(epoch)}")


def _of_batch(
    student: nn.Module,
    loss_of_batch: Callable[[Any], Tensor],
    batch: Any,
    seed: int,
    epoch: int,
    number: int,
) -> dict[Any, float]:
    noise = int(philox(seed, epoch, torch.tensor(_rank() << 32), NOISE + number)[0])

    def loss_of() -> Tensor:
        torch.manual_seed(noise)
        return loss_of_batch(batch)

    def draw(like: Tensor, tensor: int, iteration: int) -> Tensor:
        return _signs(like, seed, epoch, tensor, CURVATURE + number * ITERATIONS + iteration)

    surrogate = Surrogate(student)
    with surrogate.in_place():
        return _Estimate(surrogate, loss_of, draw).deltas()


@torch.no_grad()
def _write(named: dict[str, Any], sums: dict[Any, list[float]]) -> dict[str, float]:
    """Set the buffers to the means, the same on every rank, and return them.

    Raises:
        InputError: one is not finite, or no batch has reached any; then none is set.
    """
    if not any(sums.values()):
        raise InputError(
            "loss_of_batch: it runs none of the student's quantizers; compute the loss of this"
            " student"
        )
    reached = {name: one for name, one in named.items() if sums[one]}
    means = [sum(sums[one]) / len(sums[one]) for one in reached.values()]
    device = next(iter(named.values())).delta.device
    values = _mean_over_ranks(torch.tensor(means, dtype=torch.float64, device=device)).tolist()
    found = dict(zip(reached, values, strict=True))
    for name, value in found.items():
        if not math.isfinite(value):
            raise InputError(
                f"{name}: its delta is {value}, since gradients of the loss are not finite; lower"
                " the learning rate"
            )
    for name, one in reached.items():
        one.delta.fill_(found[name])
    return found
