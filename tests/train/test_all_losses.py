"""Every loss by name in runs: trained, counted, and resumed in the same bits."""

import pytest

from daqakd.losses import LOSSES

from ..helpers.killed import killed_at
from .test_feature_losses import FEATURES, run, same

TAPS = dict.fromkeys(("cc", "crd", "pkt", "rkd"), FEATURES) | dict.fromkeys(("dist", "dkd"))


def losses(name):
    options = {"dimensions": 8, "negatives": 64} if name == "crd" else {}
    return [(LOSSES[name](taps=TAPS.get(name, ("conv2",)), **options), 0.5)]


# FT learns for 270 steps before the student does
@pytest.mark.parametrize(("name", "at"), [*((name, 13) for name in LOSSES), ("ft", 275)])
def test_a_killed_run_ends_in_the_same_bits(tmp_path, name, at):
    whole = run(losses(name))
    with killed_at(at):
        run(losses(name), run_dir=tmp_path)
    found = run(losses(name), run_dir=tmp_path)
    assert same(whole, found)
    assert all(0 < abs(row[name]) < 1e6 for row in whole.history)
