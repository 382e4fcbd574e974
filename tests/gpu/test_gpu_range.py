"""A plan with rows outside stops the kernel; in a process of its own, whose GPU is then lost."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from daqakd.backends import can_run

CODE = """
import sys
import torch
from daqakd.functional import augment
from tests.helpers.plans import example_plan, random_pixels

backend, name, value = sys.argv[1:]
plan, pixels = example_plan(9, 3, 3, "cutmix"), random_pixels(9).cuda()
augment(pixels, plan.to("cuda"), backend=backend)
torch.cuda.synchronize()
print("the plan itself is right", flush=True)
getattr(plan, name).view(-1)[4] = int(value)
augment(pixels, plan.to("cuda"), backend=backend)
torch.cuda.synchronize()
"""


@pytest.mark.gpu
@pytest.mark.parametrize("backend", ["reference", "native", "triton"])
@pytest.mark.parametrize(("name", "value"), [("index", 9), ("setting", -1), ("partner", 99)])
def test_rows_out_of_range_stop_the_kernel(name, value, backend):
    reason = can_run("augment", backend, "cuda", torch.uint8)
    if reason is not None:
        pytest.skip(reason)
    done = subprocess.run(
        [sys.executable, "-c", CODE, backend, name, str(value)],
        env=os.environ | {"PYTHONPATH": "."},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "the plan itself is right", done.stderr[-2000:]
    assert done.returncode != 0
    assert "CUDA error" in done.stderr
