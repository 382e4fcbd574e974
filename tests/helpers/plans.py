"""Plans for tests: one setting of every kind, and plans that use them all."""

import torch
from torch import Tensor

from daqakd._ops import AUGMENT_KINDS
from daqakd.functional.augment import Plan, Settings


def one_of_each() -> Settings:
    """Return settings whose row is their kind's code, with harmless small magnitudes."""
    count = len(AUGMENT_KINDS)
    lut, integer = torch.zeros(count, 256, dtype=torch.uint8), torch.zeros(count, 6).int()
    real = torch.zeros(count, 6)
    lut[AUGMENT_KINDS["lut"]] = torch.arange(255, -1, -1)
    integer[AUGMENT_KINDS["fixed"]] = torch.tensor([65536, 20000, 30000, -9000, 65536, 40000])
    for name in ("nearest", "bilinear"):
        real[AUGMENT_KINDS[name]] = torch.tensor([0.3, 0.05, 0.01, -0.04, 0.35, 0.02])
    for name, code in AUGMENT_KINDS.items():
        if name.startswith(("contrast", "color", "sharpness")):
            real[code, :2] = torch.tensor([1.7, -0.7])
    return Settings(torch.arange(count, dtype=torch.int8), lut, integer, real)


def random_pixels(count: int, height: int = 7, width: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, 3, height, width), generator=generator).to(torch.uint8)


def example_plan(rows: int, chains: int = 1, slots: int = 2, mix: str | None = None) -> Plan:
    """Return a random plan for ``random_pixels(rows)``; ``mix`` is None, cutmix or mixup."""
    generator = torch.Generator().manual_seed(rows + chains)

    def integers(low: int, high: int, *shape: int) -> Tensor:
        return torch.randint(low, high, shape, generator=generator, dtype=torch.int32)

    share = torch.rand(rows, 1 + chains, generator=generator).softmax(1) if chains > 1 else None
    corner = integers(0, 4, rows, 2)
    box = torch.cat([corner, corner + integers(0, 4, rows, 2)], 1)
    return Plan(
        one_of_each(),
        integers(0, rows, rows).long(),
        integers(-2, 3, rows, 2),
        integers(0, 2, rows).bool(),
        integers(0, len(AUGMENT_KINDS), rows, chains, slots).short(),
        share=share,
        erase=box,
        partner=None if mix is None else torch.arange(rows).roll(1)[: rows - 1],
        box=box.flip(0)[: rows - 1] if mix == "cutmix" else None,
        weight=None if mix is None else torch.rand(rows - 1, generator=generator),
        values=torch.randn(3, 256, generator=generator),
    )


def op_arguments(
    plan: Plan, pixels: Tensor, dtype: torch.dtype = torch.float32, channels_last: bool = False
) -> tuple:
    """Return the op's arguments for a plan."""
    s = plan.settings
    settings = s.kind, s.lut, s.integer, s.real
    first = pixels, plan.index, plan.crop, plan.flip, plan.setting, *settings
    last = plan.share, plan.erase, plan.partner, plan.box, plan.weight, plan.values
    return *first, *last, dtype, channels_last


def plan_of(
    settings: Settings, setting: Tensor, index: Tensor, share: Tensor | None = None
) -> Plan:
    """Return a plan without crop or flip, whose output is bytes; ``setting`` int16 [R, C, S]."""
    none = torch.zeros(len(index), 2, dtype=torch.int32)
    return Plan(settings, index, none, torch.zeros(len(index)).bool(), setting, share)


def every_row(settings: Settings, images: int) -> Plan:
    """Return a plan that applies each setting but the first to each of the images in turn."""
    count = len(settings.kind) - 1
    rows = torch.arange(1, 1 + count).repeat_interleave(images)
    return plan_of(settings, rows.short().view(-1, 1, 1), torch.arange(images).repeat(count))
