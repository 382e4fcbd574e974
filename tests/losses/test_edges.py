"""Where losses have no statistic, or numbers leave float32: what they give there, exactly."""

import math

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from daqakd.losses import CC, DIST, DKD, FT, NST, PKT, RKD, VID
from daqakd.losses.base import pooled_alike, unit_rows

from ..helpers import slow_losses
from ..helpers.losses import CASES, batch_of, maps, prepared, setup_of, value_and_gradients

PAIRS = {"rkd": RKD(), "cc": CC(dimensions=4), "pkt": PKT()}


@pytest.mark.parametrize("name", PAIRS)
def test_one_image_has_no_pairs(name):
    loss, (student, teacher) = PAIRS[name], maps([(3,), (3,)], 1)
    loss.prepare(setup_of([student], [teacher]))
    value, (gradient,) = value_and_gradients(lambda s: loss(s, [teacher], batch_of(1)), [student])
    assert value == 0
    assert not gradient.any()


@pytest.mark.parametrize("exponent", [-37, -20, 0, 18, 38])
def test_rows_of_any_magnitude_have_length_1(exponent):
    x = torch.tensor([[3.0, -4.0], [0.0, 0.0], [-1.0, 0.0]]) / 4 * 10.0**exponent
    leaf = x.requires_grad_()
    rows = unit_rows(leaf)
    torch.testing.assert_close(rows, torch.tensor([[0.6, -0.8], [0.0, 0.0], [-1.0, 0.0]]))
    (gradient,) = torch.autograd.grad(rows[:, 0].sum(), leaf)
    wanted = torch.tensor([[0.64, 0.48], [0.0, 0.0], [0.0, 0.0]]) / (1.25 * 10.0**exponent)
    torch.testing.assert_close(gradient, wanted, rtol=1e-5, atol=0.2 * float(wanted.max()) / 1e5)


def test_coinciding_images_have_no_direction():
    (student, teacher) = maps([(3,), (3,)], 4)
    student[1] = student[0]
    value, (gradient,) = value_and_gradients(lambda s: RKD()(s, [teacher], batch_of(4)), [student])
    assert value.isfinite()
    assert gradient.isfinite().all()
    everywhere = student[:1].expand(4, 3)
    _, (gradient,) = value_and_gradients(lambda s: RKD()(s, [teacher], batch_of(4)), [everywhere])
    assert not gradient.any()


@pytest.mark.parametrize("exponent", [-60, 60])
def test_rkd_knows_no_scale(exponent):
    student, teacher = maps([(3,), (3,)], 4)
    found = [RKD()([x], [teacher], batch_of(4)) for x in (student, student * 2.0**exponent)]
    assert torch.equal(*found)


def test_dkd_is_right_where_a_model_is_sure():
    """A margin of m has probabilities 1 and exp(-m), whose logarithms are 0 and -m."""
    teacher, student = torch.zeros(1, 3), torch.zeros(1, 3)
    label = int(batch_of(1).labels)
    teacher[0, label], student[0, label] = 800.0, -800.0
    leaf = student.requires_grad_()
    loss = DKD(beta=0.0, temperature=2.0)([leaf], [teacher], batch_of(1))
    torch.testing.assert_close(loss.detach(), torch.tensor(4 * (400 + math.log(2))))
    (gradient,) = torch.autograd.grad(loss, leaf)
    wanted = torch.full((1, 3), 1.0)
    wanted[0, label] = -2
    torch.testing.assert_close(gradient, wanted)


def test_dkd_tells_1_minus_1e_30_from_1():
    teacher, student = torch.zeros(1, 2), torch.zeros(1, 2)
    label = int(batch_of(1).labels)
    teacher[0, label], student[0, label] = 69.0, 60.0
    found = DKD(temperature=1.0)([student], [teacher], batch_of(1)).double()
    p, q = math.exp(-60), math.exp(-69)
    torch.testing.assert_close(found, torch.tensor(p - q - 9 * q).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize("exponent", [0, -30, -80])
def test_dist_correlates_probabilities_of_any_size(exponent):
    """The last class has a probability of exp(exponent) or so, and counts as any other."""
    torch.manual_seed(1)
    student, teacher = torch.randn(4, 3), torch.randn(4, 3)
    student[:, 2] += exponent
    teacher[:, 2] += exponent
    loss = DIST(beta=0.0)
    value, (gradient,) = value_and_gradients(lambda s: loss(s, [teacher], batch_of(4)), [student])
    truth, (wanted,) = value_and_gradients(
        lambda s: loss(s, [teacher.double()], batch_of(4)), [student.double()]
    )
    torch.testing.assert_close(value.double(), truth, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(gradient.double(), wanted, rtol=1e-4, atol=1e-5)
    assert wanted[:, 2].abs().max() > 1e-3


@pytest.mark.parametrize("size", [1, 7])
def test_what_is_constant_correlates_with_nothing(size):
    """In float32 the mean of ten tenths is not a tenth: they are constant none the less."""
    (teacher,) = maps([(10,)], size, torch.float32)
    student = torch.full((size, 10), 0.3)
    value, (gradient,) = value_and_gradients(
        lambda s: DIST()(s, [teacher], batch_of(size)), [student]
    )
    assert value == 2
    assert not gradient.any()


def test_one_class_has_no_correlation():
    student, teacher = maps([(1,), (1,)], 3)
    loss = DIST()
    loss.prepare(setup_of([student], [teacher]))
    value, (gradient,) = value_and_gradients(lambda s: loss(s, [teacher], batch_of(3)), [student])
    assert value == 2
    assert not gradient.any()


def test_pkt_leaves_out_opposite_images():
    """Of features of one number, that is all that there are beside equal ones."""
    student = torch.tensor([[1.0], [-1.0], [2.0]])
    teacher = torch.tensor([[1.0], [1.0], [-3.0]])
    value, (gradient,) = value_and_gradients(lambda s: PKT()(s, [teacher], batch_of(3)), [student])
    # of pairs that are near for both: (0, 0), (1, 1), (2, 2), with 1/2, 1/2, 1 against 1/2, 1, 1/2
    wanted = (0.5 * math.log(0.5 / 0.5) + 0.5 * math.log(0.5 / 1) + 1 * math.log(1 / 0.5)) / 9
    torch.testing.assert_close(value, torch.tensor(wanted))
    assert gradient.isfinite().all()


def test_vid_starts_at_its_variance():
    loss, student, teacher = prepared(next(c for c in CASES if c.name == "vid"), 2)
    variances = [torch.nn.functional.softplus(theta) + 1e-5 for theta in loss.thetas]
    torch.testing.assert_close(torch.cat(variances), torch.full((8, 1, 1), 5.0).double())
    loss = VID(variance=0.25)
    loss.prepare(setup_of(student, teacher))
    variance = torch.nn.functional.softplus(loss.thetas[0]) + 1e-5
    torch.testing.assert_close(variance, torch.full((4, 1, 1), 0.25).double())


@pytest.mark.parametrize(("size", "is_exact"), [((6, 6), True), ((3, 6), True), ((4, 3), False)])
def test_sizes_that_divide_are_pooled_in_a_fixed_order(size, is_exact):
    (large, small) = maps([(2, 6, 6), (5, *size)], 2)
    with Operations() as operations:
        found, same = pooled_alike(large, small)
    assert same is small
    torch.testing.assert_close(found, slow_losses.pooled(large, *size))
    assert is_exact != any("adaptive" in name for name in operations.names)


class Operations(TorchDispatchMode):
    """The names of what is called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


class Largest(TorchDispatchMode):
    """The largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, torch.Tensor):
            self.elements = max(self.elements, made.numel())
        return made


@pytest.mark.parametrize(("channels", "side"), [(16, 8), (32, 3)])
def test_nst_makes_no_tensor_for_pairs_of_pixels_and_channels(channels, side):
    student, teacher = maps([(channels, side, side), (channels, side, side)], 2)
    with Largest() as largest:
        loss = NST()([student.requires_grad_()], [teacher], batch_of(2))
        loss.backward()
    assert largest.elements <= max(student.numel(), 2 * min(channels, side**2) ** 2)


def ft():
    loss, student, teacher = prepared(next(c for c in CASES if c.name == "ft"), 4)
    assert isinstance(loss, FT)
    return loss, student, teacher


def test_ft_trains_the_paraphraser_before_and_the_translator_with_the_student():
    loss, student, teacher = ft()
    before, during = loss.pretrained_parameters(), loss.trained_parameters()
    assert {*map(id, before + during)} == {*map(id, loss.parameters())}
    loss(student, teacher, batch_of(4)).backward()
    assert all(p.grad is None for p in before)
    assert all(p.grad is not None for p in during)
    loss.zero_grad()
    loss.pretrain_loss(teacher).backward()
    assert all(p.grad is not None for p in before)
    assert all(p.grad is None for p in during)


def test_ft_learns_to_restore_the_teachers_maps():
    loss, _, teacher = ft()
    restored = [d(e(t)) for e, d, t in zip(loss.encoders, loss.decoders, teacher, strict=True)]
    first = loss.pretrain_loss(teacher)
    wanted = sum(((r - t) ** 2).mean() for r, t in zip(restored, teacher, strict=True))
    torch.testing.assert_close(first, wanted)
    optimizer = torch.optim.SGD(loss.pretrained_parameters(), loss.pretrain_lr, momentum=0.9)
    for _ in range(loss.pretrain_epochs):
        optimizer.zero_grad()
        loss.pretrain_loss(teacher).backward()
        optimizer.step()
    assert loss.pretrain_loss(teacher) < first
