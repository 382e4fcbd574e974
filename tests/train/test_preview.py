"""What a run will take, from runs whose seconds are known."""

import pytest

from daqakd.train import Result, TrainConfig
from daqakd.train.preview import training_seconds

from ..helpers.small import SmallNet, small_dataset


@pytest.mark.parametrize(
    ("step", "least", "runs"),
    [
        (0.01, 0.0, [(1, 1), (1, 1), (3, 1)]),
        (0.01, 1.0, [(1, 1), (1, 1), (3, 1), (9, 1), (9, 4), (9, 15)]),
        (2.0, 1.0, [(1, 1), (1, 1), (3, 1)]),
        (0.0, 1.0, [(1, 1), (1, 1), (3, 1), (9, 1), (9, 4), (9, 15), (9, 57)]),
    ],
)
def test_short_steps_are_measured_over_more_of_them(step, least, runs):
    """Steps and epochs of each run: nine batches are all there are."""
    trained = []

    def train(dataset, few):
        trained.append((len(dataset.fit) // 16, few.epochs))
        assert few.delta_every > few.epochs
        return Result(SmallNet(), [], None, 0.5 + step * (len(dataset.fit) // 16) * few.epochs)

    dataset, config = small_dataset(), TrainConfig(epochs=5, batch_size=16)
    one, whole = training_seconds(train, dataset, config, least)
    assert one == pytest.approx(step)
    assert whole == pytest.approx(5 * 9 * step, abs=1.0)
    assert trained == runs


def test_fewer_images_than_a_batch_are_a_step():
    seen = []

    def train(dataset, few):
        seen.append((len(dataset.fit), few.epochs))
        return Result(SmallNet(), [], None, 0.5 + few.epochs)

    dataset = small_dataset()
    one, _ = training_seconds(train, dataset, TrainConfig(epochs=5, batch_size=500))
    assert one == 1.0
    assert seen == [(len(dataset.fit), n) for n in (1, 1, 3)]
