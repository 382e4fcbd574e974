"""``calibrate``: find signedness and starting values of the activation quantizers."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from .._arguments import check_module
from .._errors import InputError, first_line
from .base import ActivationQuantizer
from .batches import Batch, as_batches, stop_at
from .layers import QuantLayer
from .operations import Operations, counted_layers
from .weights import DoReFaWeight, EWGSWeight

Quantizers = list[ActivationQuantizer]


@contextmanager
def _batch_statistics(norms: Iterable[_BatchNorm]) -> Iterator[None]:
    """Let these layers use the statistics of the batch, unrecorded."""
    changed = [norm for norm in norms if norm.track_running_stats]
    for norm in changed:
        norm.training, norm.track_running_stats = True, False
    try:
        yield
    finally:
        for norm in changed:
            norm.track_running_stats = True


def _norms(student: nn.Module) -> list[_BatchNorm]:
    return [m for m in student.modules() if isinstance(m, _BatchNorm)]


def _norms_to_change(student: nn.Module, batches: list[Batch]) -> list[_BatchNorm]:
    """Return those that go by the statistics of the batch: all with DoReFa or EWGS weights.

    Those weights lie in [-1, 1] whatever their magnitude was, and EWGS's output scale gives it back
    by the mean alone: by the running statistics of the full-precision model, activations and
    starting values would grow from layer to layer. With other weights it is those that have no
    running statistics yet: by the ones they begin with, nothing would be normalised.
    """
    if any(batch.samples < 2 for batch in batches):  # one image has no statistics
        return []
    bounded = any(isinstance(m, DoReFaWeight | EWGSWeight) for m in student.modules())
    return _norms(student) if bounded else _new_norms(student)


def _new_norms(student: nn.Module) -> list[_BatchNorm]:
    """Return those whose running statistics are the ones they begin with; waits once."""
    norms = [m for m in _norms(student) if m.running_mean is not None]
    if not norms:
        return []
    furthest = [_from_start(norm) for norm in norms]
    furthest = [one.to(furthest[0].device) for one in furthest]
    return [n for n, far in zip(norms, torch.stack(furthest).tolist(), strict=True) if far == 0]


def _from_start(norm: _BatchNorm) -> Tensor:
    """Return how far the running statistics are from a mean of 0 and a variance of 1."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return torch.maximum(norm.running_mean.abs().amax(), (norm.running_var - 1).abs().amax())


def _check_finite(quantizers: Quantizers, batch: Batch) -> None:
    """Raise InputError where the data so far is not finite; waits for the device once."""
    seen = [q for q in quantizers if q.statistics.finite is not None]
    finite = [q.statistics.finite.to(seen[0].calibrated.device) for q in seen]  # type: ignore[union-attr]
    if finite and not bool(torch.stack(finite).all()):
        bad = [q for q, fine in zip(seen, finite, strict=True) if not fine]
        first = min(bad, key=lambda q: q.statistics.turn)
        raise stop_at(batch, first.name.removesuffix(".act_quantizer"))


def _pass(student: nn.Module, quantizers: Quantizers, phase: str, batches: list[Batch]) -> None:
    for quantizer in quantizers:
        quantizer.enter(phase)
    for batch in batches:
        student(*batch.args, **batch.kwargs)
        _check_finite(quantizers, batch)


@contextmanager
def _naming_batches() -> Iterator[None]:
    """Say that the model's own code fails on the batches."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever a stranger's forward pass raises
        raise InputError(
            f"batches: the model's forward pass fails on them ({first_line(error)}); pass batches"
            " of the shape, dtype and device that it takes"
        ) from error


def _training_pass(student: nn.Module, run: Callable[[], None]) -> Exception | None:
    """Run in training mode, leaving BatchNorm and the random numbers as they were.

    Returns the error of a model that cannot train on these batches alone: it wants labels, or more
    than one sample.
    """
    devices = {p.device for p in student.parameters() if p.device.type == "cuda"}
    student.train()
    with torch.random.fork_rng(devices), _batch_statistics(_norms(student)):
        try:
            run()
        except InputError:
            raise
        except Exception as error:  # whatever a stranger's forward pass raises
            return error
        finally:
            student.eval()
    return None


def _observe(student: nn.Module, quantizers: Quantizers, batches: list[Batch]) -> Quantizers:
    """Observe activations in full precision; return the quantizers that only training reaches.

    Raises:
        InputError: one that nothing reaches.
    """
    with _naming_batches():
        _pass(student, quantizers, "observe", batches)
    missed = [q for q in quantizers if q.statistics.minimum is None]
    if missed:
        others = {id(q) for q in quantizers} - {id(q) for q in missed}
        for quantizer in quantizers:
            quantizer.phase = "pass" if id(quantizer) in others else "observe"
        error = _training_pass(student, lambda: _pass(student, missed, "observe", batches))
        for quantizer in missed:
            if quantizer.statistics.minimum is None:
                raise _never_ran(quantizer.name, error)
    return missed


@torch.no_grad()
def calibrate(student: nn.Module, batches: Tensor | Iterable[Any]) -> nn.Module:
    """Set signedness and starting parameters of every activation quantizer, in place.

    Two passes in eval mode: the first, with activations in full precision, finds which inputs are
    ever negative; the second starts the parameters layer by layer, so that later layers see
    quantized inputs. With more than one image, BatchNorm takes the batch's statistics in both where
    weights are DoReFa's or EWGS's, or where it was never trained. Layers that only training
    reaches, such as auxiliary heads, get passes in training mode. Weights and BatchNorm buffers
    stay as they are. Waits for the device once a batch. Under ``torch.distributed`` the statistics
    are averaged, so every rank gets the same result.

    Args:
        student: what :func:`quantize` returned.
        batches: one batch, or an iterable of batches on the student's device. A batch is a tensor
            ``[B, ...]``, a dictionary of the model's arguments, a tuple of them, or a pair of one
            of these and labels, which are left out.

    Returns:
        The student.

    Raises:
        InputError: there is no batch, one cannot be passed to the model or is not finite somewhere
            in the model, or a quantized layer never ran.
    """
    check_module("student", student)
    layers = counted_layers(student)
    quantizers = [m for m in student.modules() if isinstance(m, ActivationQuantizer)]
    if not quantizers and not any(isinstance(m, QuantLayer) for m in student.modules()):
        return student
    found = as_batches(batches, student.forward)
    operations = Operations(layers)
    modes = [(m, m.training) for m in student.modules()]
    student.eval()
    try:
        _set_parameters(student, quantizers, found, operations)
    finally:
        operations.stop()
        for quantizer in quantizers:
            quantizer.enter(None)
        for module, training in modes:
            module.training = training
    operations.write(sum(batch.samples for batch in found))
    for quantizer in quantizers:
        quantizer.set_flags(True, quantizer.known_signed)
    return student


def _set_parameters(
    student: nn.Module, quantizers: Quantizers, batches: list[Batch], operations: Operations
) -> None:
    """Run the passes: signs, starting values, operations."""
    norms = _norms_to_change(student, batches)
    with _batch_statistics(norms):
        missed = _observe(student, quantizers, batches) if quantizers else []
    _set_signs(quantizers)
    first = [q for q in quantizers if all(q is not other for other in missed)]
    for quantizer in missed:
        quantizer.enter("pass")
    operations.watch()
    with _batch_statistics(norms), _naming_batches():
        _pass(student, first, "start", batches)
    never = operations.never_ran()
    if not never:
        return
    for quantizer in first:
        quantizer.enter("settled")
    operations.watch(never)
    error = _training_pass(student, lambda: _pass(student, missed, "start", batches))
    if never := operations.never_ran():
        raise _never_ran(never[0], error)


def _never_ran(name: str, error: Exception | None) -> InputError:
    training = "" if error is None else f" (which failed: {type(error).__name__}: {error})"
    return InputError(
        f"{name}: saw no data during calibration, in evaluation or training{training}: either the"
        " model does not use it for these batches, or another module reads its weight, which would"
        " then be used in full precision; exclude= it, or calibrate with batches that reach it"
    )


def _set_signs(quantizers: Quantizers) -> None:
    if not quantizers:
        return
    smallest = torch.stack([q.statistics.smallest() for q in quantizers])
    for quantizer, negative in zip(quantizers, (smallest < 0).tolist(), strict=True):
        if negative and quantizer.bits == 1 and not quantizer.has_offset:
            raise InputError(
                f"{quantizer.name}: its input is negative at times, and 1 bit has no signed form;"
                " use overrides= with 2 bits or more, or method='ewgs' or 'lsqplus'"
            )
        quantizer.set_flags(False, negative or quantizer.always_signed)
