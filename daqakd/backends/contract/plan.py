"""``augment``'s plan."""

from typing import Any

import torch
from torch import Tensor

from ..._ops import AUGMENT_KINDS
from ._arguments import FLOATS, beside, require, within
from ._registry import VALUES, check

PLAN_DTYPES = {
    "pixels": torch.uint8,
    "index": torch.int64,
    "crop": torch.int32,
    "flip": torch.bool,
    "setting": torch.int16,
    "kind": torch.int8,
    "lut": torch.uint8,
    "integer": torch.int32,
    "real": torch.float32,
    "share": torch.float32,
    "erase": torch.int32,
    "partner": torch.int64,
    "box": torch.int32,
    "weight": torch.float32,
    "values": torch.float32,
}


def _plan_shapes(plan: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    rows, settings = plan["index"].numel(), plan["kind"].numel()
    outputs = plan["partner"].numel() if "partner" in plan else rows
    chains = plan["setting"].shape[1]
    return {
        "index": (rows,),
        "crop": (rows, 2),
        "flip": (rows,),
        "kind": (settings,),
        "lut": (settings, 256),
        "integer": (settings, 6),
        "real": (settings, 6),
        "share": (rows, 1 + chains),
        "erase": (rows, 4),
        "partner": (outputs,),
        "box": (outputs, 4),
        "weight": (outputs,),
        "values": (3, 256),
        "setting": (rows, *plan["setting"].shape[1:]),
        "pixels": (len(plan["pixels"]), 3, *plan["pixels"].shape[2:]),
    }


@check
def augment(*arguments: Any) -> None:
    given = dict(zip(PLAN_DTYPES, arguments[:-2], strict=True))
    plan: dict[str, Tensor] = {k: v for k, v in given.items() if v is not None}
    pixels, setting, dtype = plan["pixels"], plan["setting"], arguments[-2]
    require(
        pixels.dim() == 4 and setting.dim() == 3, "pixels, setting: expected 4 and 3 dimensions"
    )
    shapes = _plan_shapes(plan)
    for name, x in plan.items():
        require(
            x.dtype == PLAN_DTYPES[name] and x.shape == shapes[name],
            f"{name}: its dtype or shape does not fit the plan",
        )
        beside(name, x, pixels)
    _plan_parts(plan, dtype)


def _plan_parts(plan: dict[str, Tensor], dtype: torch.dtype) -> None:
    chains = plan["setting"].shape[1]
    require("share" in plan or chains == 1, f"share: None allows one chain, got {chains}")
    if "partner" in plan:
        require(
            plan["partner"].numel() <= plan["index"].numel(),
            "partner: expected at most a row for each image",
        )
        require(
            "box" in plan or {"weight", "values"} <= plan.keys(),
            "weight: a partner without a box needs it, and values",
        )
    wanted = FLOATS if "values" in plan else (torch.uint8,)
    require(
        dtype in wanted,
        "dtype: uint8 needs a plan without values, float16, bfloat16, float32 and float64 one"
        f" with; got {dtype}",
    )


def _plan_values(*arguments: Any) -> None:
    plan = dict(zip(PLAN_DTYPES, arguments[:-2], strict=True))
    within("index", plan["index"], 0, len(plan["pixels"]) - 1)
    within("setting", plan["setting"], 0, len(plan["kind"]) - 1)
    within("kind", plan["kind"], 0, max(AUGMENT_KINDS.values()))
    within("partner", plan["partner"], 0, len(plan["index"]) - 1)
    within("share", plan["share"], 0, 1)
    within("weight", plan["weight"], 0, 1)


VALUES["augment"] = _plan_values
