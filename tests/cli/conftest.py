"""A small tree of images and a run on it, for tests that leave both as they are."""

from pathlib import Path

import pytest

from daqakd.cli.main import main

from ..helpers.small import RUN, write_images


@pytest.fixture(scope="session")
def tree(tmp_path_factory) -> Path:
    return write_images(tmp_path_factory.mktemp("tree"), train=90, test=30)


@pytest.fixture(scope="session")
def finished(tree, tmp_path_factory) -> Path:
    """A run whose files must survive whatever is tried on its directory."""
    out = tmp_path_factory.mktemp("runs") / "finished"
    assert main(["run", str(tree), "--out", str(out), *RUN, "--strategy", "minimal"]) == 0
    return out
