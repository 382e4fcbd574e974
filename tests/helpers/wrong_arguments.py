"""Arguments that the public functions refuse, and what the error says."""

import inspect
from functools import partial

import numpy as np
import torch

from daqakd import functional
from daqakd.functional.cmi import new_state

Pairs = list[tuple[dict, str]]  # of arguments that differ, and the message
ROWS, LABELS = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
INF, NAN = float("inf"), float("nan")
ONE, ONES = torch.tensor(1.0), torch.ones(2)
LIST = [torch.zeros(n) for n in (3, 5, 7)]
STEPS = [torch.ones(())] * 3

ARGUMENTS: dict[str, dict] = {
    "lsq": {"x": ROWS, "step": ONE / 2, "bits": 3, "signed": True},
    "pact": {"x": ROWS, "alpha": ONE / 2, "bits": 3},
    "dorefa_weight": {"w": torch.zeros(2), "bits": 2},
    "dorefa_activation": {"x": torch.zeros(2), "bits": 2},
    "ewgs": {"x": ROWS, "lower": -ONE, "upper": ONE, "bits": 3},
    "lsqplus": {"x": ROWS, "step": ONE, "offset": -ONE, "bits": 3},
    "seq": {"x": ROWS, "step": ONE, "levels": 4},
    "lsq_many": {"x": LIST, "step": STEPS, "bits": 2, "signed": True},
    "dorefa_weight_many": {"w": LIST, "bits": 2},
    "ewgs_many": {"x": LIST, "lower": STEPS, "upper": STEPS, "bits": 2},
    "bn_act_quant": {"x": ROWS, "method": "lsq", "parameters": (ONE / 2,), "bits": 3},
    "kd_loss": {"student_logits": ROWS, "teacher_logits": ROWS, "labels": LABELS},
    "cmi": {"logits": ROWS, "labels": LABELS},
    "cmi_update": {"state": new_state(3), "logits": ROWS, "labels": LABELS},
}
VALID = {name: partial(getattr(functional, name), **some) for name, some in ARGUMENTS.items()}

LSQ: Pairs = [
    ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
    ({"step": torch.tensor(1)}, r"step: expected float16.*got torch\.int64"),
    ({"step": ONE.to("meta")}, "step: is on meta, but the input is on cpu"),
    ({"step": torch.ones(3)}, r"step: expected one value, got shape \(3,\).*axis="),
    ({"step": torch.ones(3), "axis": 0}, r"step: expected shape \(2,\) for axis=0, got \(3,\)"),
    ({"step": torch.ones(3), "axis": 2}, r"axis: expected a dimension of the 2-D input, got 2"),
    ({"step": torch.ones(3), "axis": -3}, r"axis: .*got -3"),
    ({"bits": 0}, r"bits: expected an integer from 2 to 8 for a signed range, got 0"),
    ({"bits": 1}, r"bits: .*got 1"),
    ({"bits": 0, "signed": False}, r"bits: expected an integer from 1 to 8, got 0"),
    ({"bits": 9}, r"bits: .*got 9"),
    ({"bits": 4.0}, r"bits: .*got 4\.0"),
    ({"bits": True}, r"bits: .*got True"),
    ({"ste": "close"}, r"ste: expected one of closed, open, rounded, got 'close'"),
    ({"backend": "cuda"}, r"unknown backend in backend= 'cuda'.*native, reference, triton"),
]
PACT: Pairs = [
    ({"x": ROWS.long()}, r"x: expected float16.*got torch\.int64"),
    ({"alpha": torch.tensor(True)}, r"alpha: expected float16.*got torch\.bool"),
    ({"alpha": ONES}, r"alpha: expected one value, got shape \(2,\)"),
    ({"alpha": ONES, "axis": 1}, r"alpha: expected shape \(3,\) for axis=1"),
    ({"alpha": ONES, "axis": 5}, r"axis: .*got 5"),
    ({"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
    ({"bits": 1, "signed": True}, r"bits: expected an integer from 2 to 8 for a signed range"),
    ({"bits": 9}, r"bits: .*got 9"),
    ({"backend": "refrence"}, r"unknown backend in backend= 'refrence'.*Did you mean 'refer"),
]


def dorefa(first: str) -> Pairs:
    return [
        ({first: torch.zeros(2).int()}, r"[wx]: expected float16.*got torch\.int32"),
        ({"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
        ({"bits": 9}, r"bits: .*got 9"),
        ({"bits": "2"}, r"bits: .*got '2'"),
        ({"backend": "cpu"}, r"unknown backend in backend= 'cpu'"),
    ]


ONE_SIGNED_BIT: Pairs = [
    ({"bits": 1, "signed": True}, r"bits: expected an integer from 2 to 8 for a signed")
]
EWGS: Pairs = [
    ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
    ({"lower": torch.tensor(0)}, r"lower: expected float16.*got torch\.int64"),
    ({"upper": torch.tensor(1)}, r"upper: expected float16.*got torch\.int64"),
    ({"lower": ONES}, r"lower: expected one value, got shape \(2,\)"),
    ({"upper": ONES}, r"upper: expected one value, got shape \(2,\)"),
    ({"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
    ({"bits": 9}, r"bits: .*got 9"),
    ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
]
LSQPLUS: Pairs = [
    ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
    ({"step": torch.tensor(1)}, r"step: expected float16.*got torch\.int64"),
    ({"offset": torch.tensor(0)}, r"offset: expected float16.*got torch\.int64"),
    ({"step": ONES}, r"step: expected one value, got shape \(2,\)"),
    ({"offset": ONES}, r"offset: expected one value, got shape \(2,\)"),
    ({"bits": 0}, r"bits: expected an integer from 1 to 8, got 0"),
    ({"bits": 9}, r"bits: .*got 9"),
    ({"grad_scale": "1"}, r"grad_scale: expected a number"),
    ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
]
SEQ: Pairs = [
    ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
    ({"step": torch.tensor(1)}, r"step: expected float16.*got torch\.int64"),
    ({"step": ONES}, r"step: expected one value, got shape \(2,\)"),
    ({"step": ONE, "axis": 0}, r"step: expected shape \(\d,\) for axis=0, got \(\)"),
    ({"step": ONES, "axis": 2}, r"axis: expected a dimension of the 2-D input, got 2"),
    ({"levels": 1}, r"levels: expected an integer from 2 to 256, got 1"),
    ({"levels": 257}, r"levels: .*got 257"),
    ({"levels": True}, r"levels: .*got True"),
    ({"levels": 4.0}, r"levels: .*got 4\.0"),
    ({"grad_scale": "1"}, r"grad_scale: expected a number"),
    ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
]
LSQ_MANY: Pairs = [
    ({"bits": [2]}, r"bits: expected one per tensor, 3, got 1"),
    ({"step": [ONE]}, r"step: expected one per tensor"),
    ({"step": [ONES] * 3}, r"step\[0\]: expected shape"),
    ({"bits": 1}, r"bits: expected an integer from 2 to 8"),
    ({"grad_scale": [1.0]}, r"grad_scale: expected one per tensor"),
]
DOREFA_WEIGHT_MANY: Pairs = [
    ({"bits": 9}, r"bits: expected an integer from 1 to 8"),
    ({"w": [torch.ones(3), torch.ones(3).half()]}, r"w\[1\]: is .*float16"),
    ({"w": [torch.ones(3).long()]}, r"w\[0\]: expected float16"),
]
EWGS_MANY: Pairs = [({"upper": [torch.ones(3)] * 3}, r"upper\[0\]: expected one value")]
KD_LOSS: Pairs = [
    ({"student_logits": ROWS.int()}, r"student_logits: expected float16.*got torch\.int32"),
    ({"student_logits": ROWS[0]}, r"student_logits: expected \[B, C\].*got \(3,\)"),
    ({"student_logits": ROWS[:, :0]}, r"student_logits: expected .*C >= 1.*got \(2, 0\)"),
    ({"teacher_logits": ROWS.int()}, r"teacher_logits: expected float16.*got torch\.int32"),
    ({"teacher_logits": ROWS[:1]}, r"teacher_logits: expected \[B, C\].*\(2, 3\), got \(1, 3\)"),
    ({"teacher_logits": ROWS.clone().requires_grad_()}, r"teacher_logits: requires a gradient"),
    ({"labels": LABELS[:1]}, r"labels: expected int64 \[B\].*got torch\.int64 \(1,\)"),
    ({"labels": LABELS.bool()}, r"labels: .*got torch\.bool \(2,\)"),
    ({"labels": torch.zeros(2)}, r"labels: .*got torch\.float32 \(2,\)"),
    ({"label_smoothing": 1.0}, r"label_smoothing: expected 0 <= e < 1, got 1\.0"),
    ({"label_smoothing": -0.1}, r"label_smoothing: .*got -0\.1"),
    ({"reduction": "avg"}, r"reduction: expected one of none, mean, sum, got 'avg'"),
    ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
    ({"temperature": ONE.to("meta")}, "temperature: is on meta, but student_logits is on cpu"),
]
CMI: Pairs = [
    ({"logits": ROWS.int()}, r"logits: expected float16.*got torch\.int32"),
    ({"logits": ROWS[0]}, r"logits: expected \[B, C\], got \(3,\)"),
    ({"labels": LABELS[:1]}, r"labels: expected int64 \[B\].*got torch\.int64 \(1,\)"),
    ({"labels": LABELS.int()}, r"labels: expected int64 \[B\].*got torch\.int32 \(2,\)"),
    ({"labels": ROWS[:, :2]}, r"labels: .*got torch\.float32 \(2, 2\)"),
    ({"backend": "gpu"}, r"unknown backend in backend= 'gpu'"),
]
SOFT_LABELS: Pairs = [({"labels": ROWS}, "centroids: soft labels need fixed centroids")]

NUMBERS_OUT_OF_RANGE: Pairs = [
    ({"temperature": 0.0}, "temperature: expected more than 0, from 2"),
    ({"temperature": -4}, "temperature: expected more than 0, from 2"),
    ({"temperature": 1e30}, "temperature: expected more than 0, from 2"),
    ({"ignore_index": 1.0}, "ignore_index: expected an integer"),
    ({"ignore_index": None}, "ignore_index: expected an integer"),
    ({"temperature": torch.tensor(4)}, r"temperature: expected float16.*got torch\.int64"),
    ({"teacher_logits": ROWS.to("meta")}, "teacher_logits: is on meta, but student_logits"),
    ({"labels": [0, 1]}, "labels: expected a tensor, got list"),
    ({"labels": LABELS.to("meta")}, "labels: is on meta, but the logits is on cpu"),
]
CENTROIDS: Pairs = [
    ({"centroids": torch.eye(2)}, r"centroids: expected \[3, 3\], got \(2, 2\)"),
    ({"centroids": torch.eye(3).int()}, r"centroids: expected float16.*got torch\.int32"),
    ({"centroids": torch.eye(3).to("meta")}, "centroids: is on meta"),
    ({"logits": ROWS[:, :0]}, r"logits: expected \[B, C\], got \(2, 0\)"),
]
UPDATES: Pairs = [
    ({"state": new_state(3)[:0]}, r"state: expected contiguous int64.*got torch\.int64 \(0, 3"),
    ({"state": new_state(3)[0]}, r"state: .*got torch\.int64 \(3, 8, 2\)"),
    ({"state": new_state(3).to("meta")}, "state: is on meta"),
    ({"weight": torch.ones(2).to("meta")}, "weight: is on meta"),
    ({"weight": ONES.int()}, r"weight: expected floating point \[2\], got torch\.int32"),
    ({"group": ONES}, r"group: expected int64 \[2\], got torch\.float32"),
    ({"group": LABELS.to("meta")}, "group: is on meta"),
]

BN_ACT_QUANT: Pairs = [
    ({"x": ROWS.int()}, r"x: expected float16.*got torch\.int32"),
    ({"x": torch.zeros(3)}, r"x: expected \[N, C, \.\.\.\], got \(3,\)"),
    (
        {"x": torch.zeros(1, 3)},
        r"x: one value per channel, \(1, 3\), has no variance; use a larger",
    ),
    ({"weight": ONES}, r"weight: expected shape \(3,\) for axis=1, got \(2,\)"),
    ({"bias": ONES}, r"bias: expected shape \(3,\)"),
    ({"running_mean": torch.zeros(3)}, "running_mean, running_var: expected both, or none"),
    ({"training": False}, "running_mean, running_var: expected both"),
    (
        {"running_mean": torch.zeros(3).half(), "running_var": torch.ones(3)},
        r"running_mean: expected contiguous torch\.float32, got torch\.float16; convert it",
    ),
    (
        {"residual": torch.zeros(2)},
        r"residual: expected torch\.float32 \(2, 3\) as x, got .*\(2,\)",
    ),
    ({"residual": ROWS.half()}, r"residual: expected torch\.float32 .* got torch\.float16"),
    ({"activation": "silu"}, r"unknown activation 'silu'.*none, relu, relu6"),
    ({"method": "lqs"}, r"unknown method 'lqs'.*Did you mean 'lsq'"),
    ({"parameters": ()}, r"parameters: expected \(step\) for method lsq, got \(\)"),
    ({"method": "ewgs"}, r"parameters: expected \(lower, upper\) for method ewgs"),
    ({"method": None}, "parameters: expected none for method None"),
    ({"parameters": (ONES,)}, r"step: expected one value, got shape \(2,\)"),
    ({"bits": 9}, r"bits: .*got 9"),
    ({"bits": 1, "signed": True}, r"bits: expected an integer from 2 to 8 for a signed range"),
    (
        {"method": "ewgs", "parameters": (-ONE, ONE), "signed": True},
        "signed: ewgs has no signed form; give lower a value below 0",
    ),
    ({"ste": "close"}, r"ste: expected one of closed, open, rounded, got 'close'"),
    ({"eps": -1.0}, r"eps: expected a finite number from 0 on, got -1\.0"),
    ({"backend": "cuda"}, r"unknown backend in backend= 'cuda'"),
    ({"with_codes": 1}, "with_codes: expected True or False, got 1"),
    (
        {"method": None, "parameters": (), "with_codes": True},
        "with_codes: method None has no codes; name a method",
    ),
]
WRONG: dict[str, Pairs] = {
    "bn_act_quant": BN_ACT_QUANT,
    "lsq": LSQ,
    "pact": PACT,
    "dorefa_weight": dorefa("w"),
    "dorefa_activation": dorefa("x") + ONE_SIGNED_BIT,
    "ewgs": EWGS,
    "lsqplus": LSQPLUS,
    "seq": SEQ,
    "lsq_many": LSQ_MANY,
    "dorefa_weight_many": DOREFA_WEIGHT_MANY,
    "ewgs_many": EWGS_MANY,
    "kd_loss": KD_LOSS + NUMBERS_OUT_OF_RANGE,
    "cmi": CMI + SOFT_LABELS + CENTROIDS,
    "cmi_update": CMI + UPDATES,
}
KINDS = {  # of arguments: their names, values of other kinds, and what the error says
    "tensor": (
        "x step alpha w lower upper offset student_logits teacher_logits logits state",
        ([1.0], None, np.zeros((2, 3), np.float32), "x"),
        "expected a tensor, got (list|NoneType|ndarray|str)",
    ),
    "optional tensor": (
        "weight group centroids labels",
        ([1.0], np.zeros(2), "x"),
        "expected a tensor, got (list|ndarray|str)",
    ),
    "flag": (
        "signed detach_max return_parts recompute",
        (None, 1, "yes", ONE),
        "expected True or False, got",
    ),
    "axis": (
        "axis",
        ("1", 1.0, True, np.int64(0), [0]),
        "expected a dimension of the 2-D input, got",
    ),
    "number": (
        "grad_scale delta temperature ce_weight kd_weight label_smoothing",
        ("1", np.float32(1), True, 1j, INF, -INF, NAN, 1e39),
        "expected (a number|a finite number|more than 0)",
    ),
    "bits": ("bits", ("4", None, np.int64(4), 4.0, ONE), "expected an integer from [12] to 8"),
    "choice": ("ste reduction", (None, 1, ["mean"], ""), "expected one of"),
    "backend": ("backend", (3, ["native"], b"native"), "unknown backend in backend="),
}
LISTS = "x w step lower upper"  # of the functions on many


def wrong_kinds() -> list[tuple[str, str, object, str]]:
    """Return (function, argument, value, message) for every argument that has a kind."""
    found: list[tuple[str, str, object, str]] = []
    for function in ARGUMENTS:
        own = inspect.signature(getattr(functional, function)).parameters
        lists = LISTS if function.endswith("_many") else ""
        kinds = [
            *KINDS.values(),
            (lists, (None, ONE, 3, "x"), "expected a list of tensors, got"),
            (lists, ([1.0, 2.0, 3.0],), "expected a tensor, got float"),
        ]
        for names, values, message in kinds:
            skipped = lists.split() if names != lists else []
            for name in names.split():
                if name in own and name not in skipped:
                    found += [(function, name, value, message) for value in values]
    return found


SETTINGS = [  # numbers, or tensors of one
    ("bn_act_quant", "momentum"),
    ("bn_act_quant", "delta"),
    ("ewgs", "delta"),
    ("ewgs_many", "delta"),
    ("kd_loss", "temperature"),
    ("kd_loss", "ce_weight"),
    ("kd_loss", "kd_weight"),
]
