"""A small tree of images and a teacher of it."""

from pathlib import Path

import pytest

from daqakd.cli.main import main

from ..helpers.small import write_images

MODEL = "tests.helpers.small:small_net"


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"), train=120, test=60)


@pytest.fixture(scope="session")
def teacher(tree, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("teacher")
    line = ["teach", str(tree), "--out", str(out), "--epochs", "4", "--batch-size", "16"]
    assert main([*line, "--model", MODEL]) == 0
    return out
