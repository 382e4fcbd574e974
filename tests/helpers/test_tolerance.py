import pytest
import torch

from . import tolerance
from .cases import each_dtype

NAN, INF = float("nan"), float("inf")


def truth_of(count: int) -> torch.Tensor:
    return torch.linspace(-2, 2, count, dtype=torch.float64)


@each_dtype
def test_rounding_to_the_dtype_is_accepted(dtype):
    truth = truth_of(1001)
    tolerance.check_close(truth.to(dtype), truth)


@each_dtype
def test_an_error_above_the_floor_is_rejected(dtype):
    truth = truth_of(11)
    wrong = truth.to(dtype).clone()
    wrong[3] += 4 * tolerance.VALUE_FLOORS[dtype]
    with pytest.raises(AssertionError, match="allowed"):
        tolerance.check_close(wrong, truth)


def test_a_small_tensor_is_compared_in_its_own_unit():
    truth = 1e-6 * truth_of(11)
    tolerance.check_close((truth * 1.5).float(), truth)
    with pytest.raises(AssertionError, match="allowed"):
        tolerance.check_close((truth * 1.5).float(), truth, unit=1e-9)


def test_an_error_is_accepted_where_pytorch_has_half_of_it():
    truth = truth_of(11)
    tolerance.check_close((truth + 1e-3).float(), truth, eager=truth + 6e-4)
    with pytest.raises(AssertionError, match="allowed"):
        tolerance.check_close((truth + 1e-3).float(), truth, eager=truth + 4e-4)


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_special_value_is_rejected_where_the_truth_is_finite(bad):
    result = truth_of(5)
    result[2] = bad
    with pytest.raises(AssertionError, match="inf"):
        tolerance.check_close(result, truth_of(5))


@pytest.mark.parametrize("special", [NAN, INF, -INF])
def test_special_values_must_match(special):
    truth = truth_of(5)
    truth[2] = special
    tolerance.check_close(truth.float(), truth)
    for other in (0.0, NAN, INF, -INF):
        wrong = truth.clone()
        wrong[2] = other
        if not torch.equal(wrong.nan_to_num(7.0), truth.nan_to_num(7.0)):
            with pytest.raises(AssertionError):
                tolerance.check_close(wrong, truth)


def test_a_wrong_shape_is_rejected():
    with pytest.raises(AssertionError, match="shape"):
        tolerance.check_close(truth_of(5), truth_of(5)[None])


def test_distance_counts_ties_and_both_edges():
    v = torch.tensor([0.5, 1.2, 3.0, 3.4, -1.0, -0.9, 9.0], dtype=torch.float64)
    distance = tolerance.distance_to_boundary(v, -1, 3)
    expected = torch.tensor([0.0, 0.3, 0.0, 0.1, 0.0, 0.1, 6.0], dtype=torch.float64)
    torch.testing.assert_close(distance, expected)


def flips(count: int, flipped: list[int], by: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
    truth = torch.zeros(count, dtype=torch.float64)
    result = truth.clone()
    result[flipped] = by
    return result, truth


def near(count: int, where: list[int]) -> torch.Tensor:
    mask = torch.zeros(count, dtype=torch.bool)
    mask[where] = True
    return mask


def test_a_flip_in_the_band_is_accepted():
    tolerance.check_quantized(*flips(10, [4]), near(10, [4]), 0.5)
    tolerance.check_quantized(*flips(10, [4], by=-0.5), near(10, [4]), 0.5)


def test_a_flip_outside_the_band_is_rejected():
    with pytest.raises(AssertionError, match="boundary"):
        tolerance.check_quantized(*flips(10, [4]), near(10, [5]), 0.5)


@pytest.mark.parametrize("by", [1.0, 0.25, -1.5])
def test_a_flip_by_another_amount_is_rejected(by):
    with pytest.raises(AssertionError, match="one level"):
        tolerance.check_quantized(*flips(10, [4], by), near(10, [4]), 0.5)


def test_too_many_flips_are_rejected():
    everywhere = list(range(1000))
    tolerance.check_quantized(*flips(1000, everywhere[:5]), near(1000, everywhere), 0.5)
    with pytest.raises(AssertionError, match="6 flips"):
        tolerance.check_quantized(*flips(1000, everywhere[:6]), near(1000, everywhere), 0.5)


def test_nan_is_rejected_even_in_the_band():
    with pytest.raises(AssertionError, match="one level"):
        tolerance.check_quantized(*flips(10, [4], NAN), near(10, [4]), 0.5)
    with pytest.raises(AssertionError, match="NaN"):
        tolerance.check_quantized(*flips(10, [4], NAN), near(10, []), 0.5)


@pytest.mark.parametrize("make", ["empty", "new_empty", "empty_like", "empty_strided"])
def test_poisoned_memory_is_nan(make, poisoned_empty):
    x = torch.zeros(3)
    new = {
        "empty": lambda: torch.empty(3),
        "new_empty": lambda: x.new_empty(3),
        "empty_like": lambda: torch.empty_like(x),
        "empty_strided": lambda: torch.empty_strided((3,), (1,)),
    }[make]()
    assert new.isnan().all()
