"""Symbolic values that record ``x += y`` as what it is: ``torch.fx`` takes it for ``x = x + y``."""

import operator
from collections.abc import Callable
from typing import Any

from torch import fx
from torch.fx.proxy import Attribute

NAMES = (
    *("iadd", "isub", "imul", "imatmul", "itruediv", "ifloordiv", "imod", "ipow"),
    *("iand", "ior", "ixor", "ilshift", "irshift"),
)


def _function(name: str) -> Callable[[Any, Any], Any]:
    """Return an operator as a plain call, whose result generated code gives a name of its own."""
    change = getattr(operator, name)

    def run(x: Any, y: Any) -> Any:
        return change(x, y)

    run.__name__ = name
    return run


IN_PLACE = {name: _function(name) for name in NAMES}


class Recording(fx.Proxy):
    """A symbolic value."""

    def __getattr__(self, k: str) -> Attribute:
        return RecordingAttribute(self, k)


class RecordingAttribute(Recording, Attribute):
    """A symbolic attribute, or the method that it turns out to be when it is called."""


def _recorded(name: str) -> Callable[[fx.Proxy, Any], fx.Proxy]:
    def record(self: fx.Proxy, other: Any) -> fx.Proxy:
        made: fx.Proxy = self.tracer.create_proxy(
            "call_function", IN_PLACE[name], (self, other), {}
        )
        return made

    return record


for _name in NAMES:
    setattr(Recording, f"__{_name}__", _recorded(_name))
