"""One epoch of training on every data layout with every model."""

import os
from pathlib import Path

import pytest

from daqakd.cli.main import main
from daqakd.models import BUILDERS

from ..data.test_data import write_tiny_imagenet, write_tree
from ..helpers.small import write_images

DATA = os.environ.get("DAQAKD_DATA")
LAYOUTS = ["cifar100", "tiny-imagenet", "mixed-sizes"]


def layout(name: str, root: Path, monkeypatch) -> list[str]:
    """Return the DATA argument and options of a layout."""
    if name == "cifar100":
        if not DATA or not (Path(DATA) / "cifar100").is_dir():
            pytest.skip("DAQAKD_DATA names no folder with cifar100/")
        return ["cifar100"]
    if name == "tiny-imagenet":
        write_tiny_imagenet(root / "tiny-imagenet-200")
        monkeypatch.setenv("DAQAKD_DATA", str(root))
        return ["tiny-imagenet", "--size", "64"]
    return [str(write_tree(root, sizes=((20, 31), (40, 16)), count=8)), "--size", "32"]


def one_epoch(name: str, model: str, tmp_path, monkeypatch) -> None:
    arguments = layout(name, tmp_path / "data", monkeypatch)
    out = tmp_path / "out"
    options = ["--model", model, "--epochs", "1", "--batch-size", "4", "--lr", "0.01"]
    if name == "cifar100":
        options[-3:] = ["64", "--lr", "0.01"]
    assert main(["teach", *arguments, "--out", str(out), *options]) == 0
    assert (out / "teacher.safetensors").exists()
    assert (out / "teacher_metrics.csv").read_text().count("\n") == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("model", BUILDERS)
def test_every_model_on_every_layout(name, model, tmp_path, monkeypatch):
    one_epoch(name, model, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("name", "model"),
    [("cifar100", "resnet20"), ("tiny-imagenet", "mobilenet_v2"), ("mixed-sizes", "vgg8")],
)
def test_each_layout_once(name, model, tmp_path, monkeypatch):
    one_epoch(name, model, tmp_path, monkeypatch)


def test_the_whole_job_on_a_folder_of_mixed_sizes(tmp_path, monkeypatch):
    """Rank, train and evaluate on images that had to be resized."""
    write_images(tmp_path / "tree", train=120, test=30)
    out = str(tmp_path / "out")
    options = ["--size", "20", "--batch-size", "32", "--teacher-epochs", "4", "--epochs", "1"]
    options += ["--strategies", "minimal"]
    assert main(["run", str(tmp_path / "tree"), "--out", out, *options]) == 0
