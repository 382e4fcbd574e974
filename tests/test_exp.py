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
