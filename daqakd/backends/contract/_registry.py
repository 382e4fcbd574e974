"""The checks of the ops by name, and what runs them before an op."""

import functools
from collections.abc import Callable
from typing import Any

CHECKS: dict[str, Callable[..., None]] = {}  # of devices, dtypes, shapes and numbers
VALUES: dict[str, Callable[..., None]] = {}  # of what indexes or weighs something, on a CPU


def check(function: Callable[..., None]) -> Callable[..., None]:
    """Make this the check of the op of the same name."""
    CHECKS[function.__name__] = function
    return function


def checked(function: Callable[..., Any], *, values: bool = False) -> Callable[..., Any]:
    """Check the arguments of the op that ``function`` implements, and ``values`` among them."""
    name = function.__name__
    checks = [CHECKS[name], *([VALUES[name]] if values and name in VALUES else [])]

    @functools.wraps(function)
    def run(*arguments: Any) -> Any:
        for one in checks:
            one(*arguments)
        return function(*arguments)

    return run
