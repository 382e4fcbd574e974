"""The distillation loss at high temperatures, against 50 decimal digits."""

from decimal import Decimal, localcontext
from functools import partial

import pytest
import torch
from torch import Tensor

from daqakd._ops import accumulation_dtype
from daqakd.functional import kd_loss

from ..helpers import cases, truth
from ..helpers.cases import each_backend, each_dtype
from .test_kd_loss import INF, logits

pytestmark = pytest.mark.usefixtures("poisoned_empty")
each_temperature = pytest.mark.parametrize("temperature", [32.0, 1e3, 1e4, 1e8, 2.0**59])


def softened(row: Tensor, temperature: float) -> list[Decimal]:
    weights = [(Decimal(x) / Decimal(temperature)).exp() for x in row.tolist()]
    total = sum(weights)
    return [w / total for w in weights]


def row_truth(z: Tensor, t: Tensor, temperature: float) -> tuple[float, list[float]]:
    """Return T^2 * KL of a row and its gradient, which are small differences of large numbers."""
    with localcontext() as context:
        context.prec = 50
        q, p, heat = softened(z, temperature), softened(t, temperature), Decimal(temperature)
        kl = sum(b * (b.ln() - a.ln()) for a, b in zip(q, p, strict=True))
        return float(heat * heat * kl), [float(heat * (a - b)) for a, b in zip(q, p, strict=True)]


def check(z: Tensor, t: Tensor, temperature: float, backend: str) -> None:
    run = partial(kd_loss, kd_weight=1.0, reduction="none", backend=backend)
    g = torch.ones(len(z), dtype=accumulation_dtype(z.dtype))
    run = partial(run, teacher_logits=t, temperature=temperature)
    loss, dz = truth.with_gradients(run, [z], g)
    rows = [row_truth(a, b, temperature) for a, b in zip(z, t, strict=True)]
    rtol = {torch.float64: 1e-12, torch.float32: 2e-6}.get(z.dtype, 1e-2)
    expected = torch.tensor([kl for kl, _ in rows], dtype=torch.float64)
    gradient = torch.tensor([row for _, row in rows], dtype=torch.float64)
    torch.testing.assert_close(loss.double(), expected, rtol=min(rtol, 2e-6), atol=0)
    torch.testing.assert_close(dz.double(), gradient, rtol=rtol, atol=rtol * float(gradient.max()))


@each_backend
@each_dtype
@each_temperature
@pytest.mark.parametrize("classes", [2, 65, 300])
def test_no_digit_is_lost(classes, temperature, dtype, backend):
    cases.require("kd_loss", backend, dtype)
    check(logits(3, classes, dtype), logits(3, classes, dtype), temperature, backend)


@each_backend
def test_a_row_that_is_read_in_parts(backend):
    cases.require("kd_loss", backend)
    check(logits(1, 8200, torch.float32), logits(1, 8200, torch.float32), 1e4, backend)


@each_backend
@pytest.mark.parametrize("shift", [0.0, 1000.0])
def test_a_shift_of_all_logits_changes_nothing(shift, backend):
    cases.require("kd_loss", backend)
    z, t = logits(3, 5, torch.bfloat16).float(), logits(3, 5, torch.bfloat16).float()
    check(z + shift, t - shift, 1e5, backend)


@each_backend
def test_logits_far_apart_at_a_high_temperature(backend):
    """Rows that differ by much have large divergences, which come from the logarithms."""
    cases.require("kd_loss", backend)
    z, t = logits(4, 6, torch.float32), logits(4, 6, torch.float32)
    z[0, 0], t[1, 1], z[2] = 3e4, 2e4, 100 * z[2]
    check(z, t, 64.0, backend)


@each_backend
def test_a_class_that_only_the_student_considers(backend):
    cases.require("kd_loss", backend)
    z, t = logits(2, 4, torch.float32), logits(2, 4, torch.float32)
    t[:, 3] = -INF
    run = partial(kd_loss, temperature=1e3, kd_weight=1.0, reduction="none", backend=backend)
    q, p = ((x.double() / 1e3).softmax(1) for x in (z, t))
    kl = torch.where(p > 0, p * (p.log() - q.log()), 0.0).sum(1)
    loss, dz = truth.with_gradients(partial(run, teacher_logits=t), [z], torch.ones(2))
    torch.testing.assert_close(loss.double(), 1e6 * kl, rtol=1e-5, atol=0)
    torch.testing.assert_close(dz.double(), 1e3 * (q - p), rtol=1e-5, atol=1e-3)


@each_backend
def test_a_tensor_as_temperature(backend):
    cases.require("kd_loss", backend)
    z, t = logits(3, 7, torch.float32), logits(3, 7, torch.float32)
    run = partial(kd_loss, z, t, backend=backend)
    for heat in (4.0, 1e6):
        assert torch.equal(run(temperature=torch.tensor(heat)), run(temperature=heat))


@each_backend
def test_rows_of_one_batch_are_centred_one_by_one(backend):
    cases.require("kd_loss", backend)
    z, t = logits(20, 5, torch.float32), logits(20, 5, torch.float32)
    z[::3] *= 3e3
    run = partial(kd_loss, temperature=50.0, reduction="none", backend=backend)
    alone = torch.cat([run(a[None], b[None]) for a, b in zip(z, t, strict=True)])
    assert torch.equal(run(z, t), alone)
