"""The CPU kernels' exp and log, against higher precision."""

import numpy as np
import pytest

host = pytest.importorskip("daqakd._host")
WIDER = {np.float32: np.float64, np.float64: np.longdouble}
EXP_RANGE = {np.float32: 87.3, np.float64: 708.3}
each_type = pytest.mark.parametrize("kind", WIDER)


def units_off(result, truth):
    """Return the largest error in units in the last place of the result's type."""
    unit = np.spacing(np.abs(truth).astype(result.dtype)).astype(truth.dtype)
    return float(np.max(np.abs(result.astype(truth.dtype) - truth) / unit))


@each_type
def test_exp(kind):
    below = -(np.random.default_rng(0).uniform(0, 1, 400_000) ** 3) * EXP_RANGE[kind]
    x = np.concatenate([below, -below[below > -80]]).astype(kind)
    assert units_off(host.exp(x), np.exp(x.astype(WIDER[kind]))) < 1.1


@each_type
@pytest.mark.parametrize(("low", "high"), [(-120, 120), (-0.6, 2)])
def test_log(low, high, kind):
    x = (2.0 ** np.random.default_rng(0).uniform(low, high, 400_000)).astype(kind)
    assert units_off(host.log(x), np.log(x.astype(WIDER[kind]))) < 1.0


@each_type
def test_ends(kind):
    x = np.array([0.0, -np.inf, -1e30, -800.0, np.nan], kind)
    np.testing.assert_array_equal(host.exp(x), np.array([1, 0, 0, 0, np.nan], kind))
    x = np.array([1.0, np.inf, np.nan], kind)
    np.testing.assert_array_equal(host.log(x), np.array([0, np.inf, np.nan], kind))


def test_exp_and_logs_keep_all_but_two_bits():
    if np.finfo(np.longdouble).nmant < 63:
        pytest.skip("this machine has no wider floating point to compare with")
    rng = np.random.default_rng(0)
    near_one = 1 + rng.choice([-0.5, 1], 5000) * 2.0 ** -rng.uniform(0, 52, 5000)
    inputs = {
        "exp": -(2.0 ** rng.uniform(-60, 9.46, 20_000)),
        "log": np.concatenate([2.0 ** rng.uniform(-1070, 1020, 20_000), near_one]),
        "log1p": np.concatenate([2.0 ** rng.uniform(-100, 60, 20_000), near_one / 2 - 1]),
    }
    functions = {"exp": host.exp64, "log": host.log64, "log1p": host.log1p}
    for name, x in inputs.items():
        exact = getattr(np, name)(x.astype(np.longdouble))
        wrong = np.abs((functions[name](x) - exact) / np.where(exact == 0, 1, exact))
        assert wrong.max() < 4 * 2.0**-53, name
    special = np.array([0.0, -np.inf, np.nan, -709.0])
    np.testing.assert_array_equal(host.exp64(special), [1, 0, np.nan, 0])
    special = np.array([0.0, 1.0, np.inf, np.nan, -1.0])
    np.testing.assert_array_equal(host.log64(special), [-np.inf, 0, np.inf, np.nan, np.nan])
    special = np.array([0.0, -1.0, np.inf, np.nan, -2.0])
    np.testing.assert_array_equal(host.log1p(special), [0, -np.inf, np.inf, np.nan, np.nan])
