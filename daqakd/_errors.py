"""The one exception type that means: the input is wrong, and here is what to do about it."""


class InputError(ValueError):
    """Wrong input from the user: the message says what was seen, what was wanted, what to do."""


def suggest(name: str, known: list[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for a near miss of ``name`` among ``known``, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean {near[0]!r}?" if near else ""


def unknown(kind: str, name: str, known: list[str]) -> InputError:
    """Build the error for a ``name`` that is not one of the ``known`` ``kind``."""
    return InputError(
        f"unknown {kind} {name!r}.{suggest(name, known)} Known: {', '.join(sorted(known))}"
    )
