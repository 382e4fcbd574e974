"""Each loss is its slow definition; laws that all obey: exact gradients, zeros, single images."""

import pytest
import torch

from daqakd import InputError
from daqakd.losses import LOSSES, WEIGHTS

from ..helpers.losses import CASES, batch_of, prepared, trained, value_and_gradients
from ..helpers.refusals import check_sentence

each_case = pytest.mark.parametrize("case", CASES, ids=str)
MAKE_OTHERS = ("cc", "squat")  # of equal maps
SAME = [c for c in CASES if c.student == c.teacher and c.name not in MAKE_OTHERS]
FILLS = {"zeros": 0.0, "tiny": 1e-30, "equal": 1.0}


def run(case, loss, student, teacher):
    """Return the value, and the gradients of maps and parameters."""
    batch = batch_of(len(student[0]))
    return value_and_gradients(lambda s: loss(s, teacher, batch), student, trained(loss))


def test_every_loss_by_name_has_a_weight_and_a_case():
    assert [*LOSSES] == sorted(LOSSES) == sorted(WEIGHTS)
    assert {case.name for case in CASES} | {"crd"} == {*LOSSES}  # which has tests of its own


@each_case
@pytest.mark.parametrize("size", [2, 4])
def test_it_is_its_definition(case, size):
    loss, student, teacher = prepared(case, size)
    labels = batch_of(size).labels
    value, gradients = run(case, loss, student, teacher)
    truth, wanted = value_and_gradients(
        lambda s: case.slow(loss, s, teacher, labels), student, trained(loss)
    )
    assert value.shape == ()
    torch.testing.assert_close(value, truth, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(gradients, wanted, rtol=1e-9, atol=1e-11)
    assert any(g.any() for g in wanted)


@each_case
def test_gradients_are_those_of_finite_differences(case):
    loss, student, teacher = prepared(case, 3)
    leaves = [s.requires_grad_() for s in student]
    assert torch.autograd.gradcheck(lambda *s: loss(s, teacher, batch_of(3)), leaves)


@each_case
def test_single_precision_is_as_good_as_it_can_be_and_repeats(case):
    loss, student, teacher = prepared(case, 4)
    value, gradients = run(case, loss, student, teacher)
    found = [run(case, loss.float(), [s.float() for s in student], [t.float() for t in teacher])]
    found.append(run(case, loss, [s.float() for s in student], [t.float() for t in teacher]))
    assert found[0][0].dtype == torch.float32
    torch.testing.assert_close(found[0][0].double(), value, rtol=2e-5, atol=1e-6)
    for one, again, wanted in zip(found[0][1], found[1][1], gradients, strict=True):
        assert torch.equal(one, again)
        assert (one - wanted).abs().max() <= 2e-5 * wanted.abs().max().clamp(min=1)


@each_case
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("side", ["student", "teacher", "both"])
@pytest.mark.parametrize("size", [1, 3])
def test_maps_without_structure_are_finite(case, fill, side, size):
    loss, student, teacher = prepared(case, size, torch.float32)
    filled = {"student": [student], "teacher": [teacher], "both": [student, teacher]}[side]
    for values in filled:
        values[:] = [v * FILLS[fill] if fill == "tiny" else v.fill_(FILLS[fill]) for v in values]
    value, gradients = run(case, loss, student, teacher)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients)


@pytest.mark.parametrize("case", SAME, ids=str)
def test_equal_maps_cost_nothing(case):
    loss, student, _ = prepared(case, 4)
    value, gradients = run(case, loss, student, student)
    assert value.abs() < 1e-14
    assert all(g.abs().max() < 1e-12 for g in gradients)


@pytest.mark.parametrize("case", [c for c in CASES if c.name != "sp"], ids=str)
def test_values_of_other_dimensions_are_refused(case):
    other = [(2, 2, 2, 2)] * len(case.student)
    bad = type(case)(case.name, other, case.teacher, case.options)
    with pytest.raises(InputError, match=r"a tap gives .* expected . dimensions") as caught:
        prepared(bad, 2)
    check_sentence(str(caught.value))


@each_case
def test_its_text_shows_what_it_was_made_with(case):
    text = repr(case.loss())
    for name, value in case.options.items():
        assert f"{name}={value}" in text
