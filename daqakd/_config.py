"""Checks of configurations: dataclasses whose annotations say what each option may be."""

from collections.abc import Callable
from dataclasses import fields
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ._errors import InputError, seen

LARGEST_NUMBER = 2.0**128 - 2.0**104  # of float32
MOST_WORKERS = 1024
Config = TypeVar("Config")


def is_number(value: Any) -> bool:
    """Return whether it is a number that float32 holds."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST_NUMBER


def has_64_bits(value: int) -> bool:
    """Return whether an integer is no longer than those of tensors, files and seeds."""
    return -(2**63) <= value < 2**64


SCALARS: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    bool: ("True or False", lambda v: isinstance(v, bool)),
    int: ("an integer", lambda v: isinstance(v, int) and not isinstance(v, bool)),
    float: ("a finite number", lambda v: is_number(v)),
    str: ("a string", lambda v: isinstance(v, str)),
    NoneType: ("None", lambda v: v is None),
}


def fits(value: Any, hint: Any) -> bool:
    """Return whether an annotation allows a value."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is tuple:
        count = len(value) if isinstance(value, tuple) else -1
        wanted = inner[:1] * count if inner[-1] is ... else inner
        return len(wanted) == count and all(map(fits, value, wanted))
    return SCALARS[hint][1](value) if hint in SCALARS else isinstance(value, hint)


def describe_hint(hint: Any) -> str:
    """Return what an annotation allows, in words."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if origin in (Union, UnionType):
        return " or ".join(describe_hint(one) for one in inner)
    if origin is tuple:
        many = "any number" if inner[-1] is ... else str(len(inner))
        return f"a tuple of {many}, each {describe_hint(inner[0])}"
    return SCALARS[hint][0] if hint in SCALARS else f"a {hint.__name__}"


def check_types(config: Any) -> None:
    """Raise InputError for the first field whose value its annotation does not allow."""
    hints = get_type_hints(type(config))
    for field in fields(config):
        value = getattr(config, field.name)
        if not fits(value, hints[field.name]):
            wanted = describe_hint(hints[field.name])
            raise InputError(f"{field.name}: expected {wanted}, got {seen(value)}")
        if isinstance(value, int) and not has_64_bits(value):
            raise InputError(
                f"{field.name}: expected an integer from -2^63 to 2^64 - 1, got {seen(value)}"
            )


def check_least(config: Any, least: float, *names: str) -> None:
    """Raise InputError for the first named field that is below ``least``; None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value < least:
            raise InputError(f"{name}: expected at least {least:g}, got {value}")


def check_most(config: Any, most: float, *names: str) -> None:
    """Raise InputError for the first named field that is above ``most``; None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and value > most:
            raise InputError(f"{name}: expected at most {most:g}, got {value}")


def check_above(config: Any, bound: float, *names: str) -> None:
    """Raise InputError for the first named field that is not above ``bound``; None passes."""
    for name in names:
        value = getattr(config, name)
        if value is not None and not value > bound:
            raise InputError(f"{name}: expected more than {bound:g}, got {value}")


def config_of(kind: type[Config], config: Any) -> Config:
    """Return a configuration of a kind; None for the defaults."""
    if config is None:
        return kind()
    if not isinstance(config, kind):
        raise InputError(f"config: expected a {kind.__name__} or None, got {seen(config)}")
    return config


def check_workers(config: Any) -> None:
    """Raise InputError where ``workers`` is no number of processes; None passes."""
    check_least(config, 0, "workers")
    check_most(config, MOST_WORKERS, "workers")
