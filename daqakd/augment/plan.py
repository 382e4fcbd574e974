"""What the draws become: a :class:`Plan` over a table of :class:`Settings`."""

from ..functional.augment import AUGMENT_KINDS, Plan, Settings

__all__ = ["AUGMENT_KINDS", "Plan", "Settings"]
