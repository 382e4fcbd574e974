"""The images that whole rankings are timed on."""

from benchmarks.bench_ranking import CLASSES, SIDE, made_up
from daqakd.data import load


def test_made_up_images_are_a_data_set(tmp_path):
    dataset = load(made_up(tmp_path / "data", 60))
    assert dataset.num_classes == CLASSES
    assert (len(dataset.train), len(dataset.test)) == (60, 100)
    assert dataset.train.pixels.shape[1:] == (3, SIDE, SIDE)
    assert dataset.train.digest()  # read again, and compared
    assert dataset.test.labels[:3].tolist() == [0, 1, 2]
