"""No arguments crash a raw op: it refuses them, or gives what the reference gives."""

import os
import re
from typing import Any

import pytest
import torch

from daqakd import _ops
from daqakd._cmi import from_limbs

from ..helpers import fuzz
from ..helpers.samples import runnable, tensors

INTERNALS = re.compile(r"csrc|\.cpp|\.h:\d|\.cu|aoti|STD_TORCH|to be true|API call failed|__")
COUNT = 150
TOLERANCES = {torch.float16: 1e-2, torch.bfloat16: 2e-2}


def outcome(name: str, backend: str, arguments: list[Any]) -> list[torch.Tensor] | Exception:
    """Return the results of a call, the state among them, or what it raised."""
    given = fuzz.copied(arguments)
    try:
        results = runnable(name, backend)(*given)
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return error
    return tensors(given[:1] if name == "cmi_update" else results)


def speaks_plainly(error: Exception) -> bool:
    """Return whether a message names no source of the package; the dispatcher's are not its own."""
    text = str(error)
    return text.startswith(("Could not run", "There were no tensor")) or not INTERNALS.search(text)


def compare(found: list[torch.Tensor], wanted: list[torch.Tensor]) -> None:
    for a, b in zip(found, wanted, strict=True):
        if a.dtype == torch.int64:
            a, b = from_limbs(a), from_limbs(b)
        a, b = (torch.where(x.isfinite(), x, torch.nan) for x in (a, b))  # infinities cancel
        rtol = TOLERANCES.get(a.dtype, 1e-4)
        torch.testing.assert_close(a, b, rtol=rtol, atol=rtol, equal_nan=True)


@pytest.mark.parametrize("seed", range(int(os.environ.get("DAQAKD_FUZZ_SEEDS", "2"))))
@pytest.mark.parametrize("name", _ops.SCHEMAS)
def test_native_refuses_or_equals_the_reference(name, seed):
    for arguments in fuzz.cases(name, COUNT, seed):
        found, wanted = (outcome(name, b, arguments) for b in ("native", "reference"))
        if isinstance(found, Exception) or isinstance(wanted, Exception):
            assert isinstance(found, Exception), f"only the reference refuses: {wanted}"
            assert isinstance(wanted, Exception), f"only the library refuses: {found}"
            assert speaks_plainly(found), found
        else:
            compare(found, wanted)
