"""What a run will take, from runs whose seconds are known."""

import pytest

from daqakd.train import Result, TrainConfig
from daqakd.train.preview import MOST_STEPS, training_seconds

from ..helpers.small import SmallNet, small_dataset


@pytest.mark.parametrize(
    ("step", "least", "epochs"),
    [
        (0.01, 0.0, [1, 1, 3]),
        (0.01, 1.0, [1, 1, 3, 9, 33, 129]),
        (2.0, 1.0, [1, 1, 3]),
        (0.0, 1.0, [1, 1, 3, 9, 33, 129, 1 + MOST_STEPS]),
    ],
)
def test_short_steps_are_measured_over_more_of_them(step, least, epochs):
    """A run pauses for half a second at its start, whatever its length."""
    trained = []

    def train(dataset, few):
        trained.append(few.epochs)
        assert few.delta_every > few.epochs
        return Result(SmallNet(), [], None, 0.5 + step * few.epochs)

    dataset, config = small_dataset(), TrainConfig(epochs=5, batch_size=16)
    one, whole = training_seconds(train, dataset, config, least)
    assert one == pytest.approx(step)
    steps = 5 * (len(dataset.fit) // 16)
    assert whole == pytest.approx(steps * step, abs=1.0)
    assert trained == epochs
