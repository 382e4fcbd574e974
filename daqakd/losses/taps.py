"""Reading a model's taps: hooks that note what modules give or are given."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from .._errors import InputError
from ..models import logits_of
from ..models.taps import module_at, split_tap

LOGITS = "logits"


class Taps:
    """Hooks on a model's modules, from now on until :meth:`remove`.

    Args:
        model: whose forward pass is watched; ``logits`` is what that pass returned.
        names: of the taps, each once or more.

    Raises:
        InputError: there is no such module.
    """

    def __init__(self, model: nn.Module, names: Iterable[str]) -> None:
        self.values: dict[str, Tensor] = {}
        self.handles = [self._watch(model, tap) for tap in dict.fromkeys(names) if tap != LOGITS]

    def _watch(self, model: nn.Module, tap: str) -> Any:
        module, is_input = module_at(model, tap), split_tap(tap)[1]
        if is_input:
            return module.register_forward_pre_hook(partial(self._given, tap))
        return module.register_forward_hook(partial(self._returned, tap))

    def _given(self, tap: str, _module: nn.Module, args: tuple[Any, ...]) -> None:
        self.values[tap] = logits_of(args)

    def _returned(self, tap: str, _module: nn.Module, _args: Any, output: Any) -> None:
        self.values[tap] = logits_of(output)

    def read(self, names: Iterable[str], logits: Tensor) -> list[Tensor]:
        """Return what the last pass gave at the taps, in float32 or wider.

        Raises:
            InputError: the pass did not reach one.
        """
        found = {**self.values, LOGITS: logits}
        for name in names:
            if name not in found:
                raise InputError(
                    f"taps: the forward pass does not call {name!r} as a module, so it has no"
                    " value; name one that it calls"
                )
        return [_wide(found[name]) for name in names]

    def clear(self) -> None:
        """Let go of the values."""
        self.values.clear()

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self.handles:
            handle.remove()


def _wide(value: Tensor) -> Tensor:
    return value.to(torch.promote_types(value.dtype, torch.float32))
