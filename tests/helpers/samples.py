"""Arguments that every op is tried with."""

from dataclasses import replace

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from daqakd import _ops
from daqakd.backends import can_run
from daqakd.backends._layout import pack
from daqakd.functional.cmi import new_state

from . import cases
from .plans import example_plan, op_arguments, random_pixels


def scalar(value: float) -> Tensor:
    return torch.tensor(value)


def images(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 3, 4, 5).to(dtype).to(memory_format=torch.channels_last)


def columns(dtype: torch.dtype = torch.float32) -> Tensor:
    """Return a tensor that is not dense."""
    return torch.randn(3, 8).to(dtype)[:, 1:6]


def mask(bits: int) -> Tensor:
    """Return a packed mask for ``images()``, without the code of NaN."""
    return pack(torch.randint(0, bits + 1, images().shape), images(), bits)


def codes(count: int, slot: int) -> Tensor:
    """Return packed codes of ``slot`` bits, none the highest."""
    return pack(torch.randint(0, 2**slot - 1, (count,)), torch.empty(count), slot)


def centroids() -> Tensor:
    return torch.rand(5, 5, dtype=torch.float64).softmax(1)


HARD = torch.tensor([0, 4, 2])


def norm() -> tuple[Tensor, ...]:
    """Return weight, bias and running statistics, which ops write, of three channels."""
    return tuple(torch.linspace(0.5, 1.5, 3) + place for place in range(4))


BY_LSQ, BY_PACT = (1, scalar(0.3), None, 4, False), (2, scalar(1.2), None, 3, True)
BY_DOREFA, BY_EWGS = (3, None, None, 4, False), (4, scalar(-0.1), scalar(1.2), 3, False)
BY_ONE_BIT = 3, None, None, 1, False
ALONE, WITH_RESIDUAL = (0, 0.5, 0.0, None, False), (0, 1.0, 0.0, scalar(0.2), True)
UNQUANTIZED = 0, None, None, 8, False
STATISTICS = torch.tensor([[0.1, -0.2, 0.0], [0.9, 1.1, 1.3]])


SOFT = torch.full((3, 5), 0.2)


NUMBERS, NO_TENSORS = (4.0, 1.0, 2.0), (None, None, None)


TENSORS = tuple(scalar(number) for number in NUMBERS)


HALF = torch.bfloat16


SAMPLES: dict = {
    "lsq_forward": lambda: [
        (images(), scalar(0.3), -4, 3, None),
        (columns(HALF), torch.rand(5), 0, 15, 1),
        (torch.randn(()), scalar(0.3), -4, 3, None),
    ],
    "lsq_backward": lambda: [
        (images(), images(), scalar(0.3), -4, 3, None, 0, 1.0),
        (columns(HALF), columns(HALF), torch.rand(5), 0, 15, -1, 2, 0.5),
        (columns().double(), columns().double(), torch.rand(3).double(), 0, 15, 0, 1, 0.5),
    ],
    "pact_forward": lambda: [
        (images(), scalar(1.0), 4, False, None),
        (columns(HALF), torch.rand(5), 3, True, 1),
        (torch.zeros(0, 3), scalar(1.0), 4, False, None),
    ],
    "pact_backward": lambda: [
        (images(), mask(2), scalar(1.0), False, None),
        (images(HALF), mask(2), torch.rand(3), True, 1),
    ],
    "dorefa_activation_forward": lambda: [(images(), 4, False), (columns(HALF), 3, True)],
    "dorefa_activation_backward": lambda: [(images(), mask(1)), (images(HALF), mask(1))],
    "dorefa_weight_forward": lambda: [(images(), 4), (columns(HALF), 1), (torch.zeros(0), 2)],
    "dorefa_weight_backward": lambda: [
        (images(), images(), scalar(0.9), 4, True),
        (columns(HALF), columns(HALF), scalar(0.9), 1, False),
    ],
    "ewgs_forward": lambda: [
        (images(), scalar(-1.0), scalar(1.0), 4),
        (columns(HALF), scalar(-1.0), scalar(1.0), 1),
    ],
    "ewgs_backward": lambda: [
        (images(), images(), scalar(-1.0), scalar(1.0), 4, 0.1, None),
        (columns(HALF), columns(HALF), scalar(-1.0), scalar(1.0), 4, 0.0, scalar(0.1)),
    ],
    "lsqplus_forward": lambda: [
        (images(), scalar(0.3), scalar(-1.0), 4),
        (columns(HALF), scalar(0.3), scalar(-1.0), 1),
    ],
    "lsqplus_backward": lambda: [
        (images(), images(), scalar(0.3), scalar(-1.0), 4, 0.1),
        (columns(HALF), columns(HALF), scalar(0.3), scalar(-1.0), 1, 1.0),
    ],
    "seq_forward": lambda: [
        (images(), scalar(0.3), 4, None),
        (columns(HALF), torch.rand(5), 3, 1),
    ],
    "seq_backward": lambda: [
        (images(), images(), scalar(0.3), 4, None, 0.1),
        (columns(HALF), columns(HALF), torch.rand(5), 3, 1, 1.0),
    ],
    "lsq_many_forward": lambda: [
        ([images(), columns()], [scalar(0.3), torch.rand(3)], [-4, -2], [3, 1]),
        ([columns(HALF), torch.zeros(0).to(HALF)], [torch.rand(3), scalar(0.3)], [0, 0], [15, 3]),
    ],
    "lsq_many_backward": lambda: [
        (
            [images(), columns()],
            [images(), columns()],
            [scalar(0.3), torch.rand(3)],
            *([-4, -2], [3, 1], 0, [1.0, 0.5]),
        ),
    ],
    "dorefa_weight_many_forward": lambda: [
        ([images(), columns()], [4, 1]),
        ([columns(HALF), torch.zeros(0).to(HALF)], [1, 2]),
    ],
    "dorefa_weight_many_backward": lambda: [
        ([images(), columns()], [images(), columns()], torch.rand(2), [4, 1], True),
        ([columns(HALF)], [columns(HALF)], torch.rand(1), [4], False),
    ],
    "ewgs_many_forward": lambda: [
        ([images(), columns()], [scalar(-1.0)] * 2, [scalar(1.0)] * 2, [4, 1]),
    ],
    "ewgs_many_backward": lambda: [
        (
            [images(), columns()],
            [images(), columns()],
            *([scalar(-1.0), scalar(-0.5)], [scalar(1.0), scalar(0.5)], [4, 1], 0.1, None),
        ),
        ([columns(HALF)],) * 2 + ([scalar(-1.0)], [scalar(1.0)], [4], 0.0, scalar(0.1)),
    ],
    "bn_act_quant_forward": lambda: [
        (images(), None, *norm(), True, 0.1, None, 1e-5, 1, *BY_LSQ, True, False),
        (columns(HALF),) * 2 + (*[None] * 4, True, 0.1, None, 1e-5, 0, *BY_PACT, False, True),
        (images(),) * 2
        + (None, None, *norm()[2:], False, 0.1, scalar(0.5), 0.0, 2, *BY_EWGS, True, True),
        (columns(), None, *[None] * 4, True, 0.1, None, 1e-5, 1, *UNQUANTIZED, False, False),
        (torch.zeros(0, 3), None, *norm(), True, 0.1, None, 1e-5, 1, *BY_DOREFA, True, True),
        (torch.randn(5, 3), None, *norm(), True, 0.1, None, 1e-5, 1, *BY_ONE_BIT, False, True),
    ],
    "bn_act_quant_backward": lambda: [
        (images(), None, images(), None, STATISTICS, *norm()[:2], True, 1, *BY_LSQ, *ALONE),
        (*[images(HALF)] * 4, STATISTICS, None, None, True, 0, *BY_PACT, *WITH_RESIDUAL),
        (None, *[images()] * 3, STATISTICS, *norm()[:2], False, 2, *BY_EWGS, *WITH_RESIDUAL),
        (images(), None, images(), None, STATISTICS, *norm()[:2], True, 1, *UNQUANTIZED, *ALONE),
    ],
    "codes_pack": lambda: [
        (images(), scalar(0.3), 1, 4, True),
        (columns(HALF), scalar(1.0), 2, 3, False),
        (torch.randn(()), None, 3, 8, True),
        (torch.zeros(0, 3), None, 4, 1, False),
    ],
    "codes_unpack": lambda: [
        (codes(120, 4), scalar(0.3), 1, 3, True, 120, torch.float32),
        (codes(15, 8), scalar(1.0), 2, 8, False, 15, HALF),
        (codes(7, 2), None, 3, 2, True, 7, torch.float32),
        (codes(0, 1), None, 4, 1, False, 0, torch.float32),
    ],
    "kd_loss_forward": lambda: [
        (columns(), columns(), HARD, *NUMBERS, *NO_TENSORS, 0.1, -100, 1, True),
        (columns(HALF), columns(), SOFT, *NUMBERS, *TENSORS, 0.0, -100, 0, True),
        (columns(HALF), columns(), None, *NUMBERS, *NO_TENSORS, 0.0, -100, 2, False),
    ],
    "kd_loss_backward": lambda: [
        (scalar(0.5), columns(), columns(), HARD, *NUMBERS, *NO_TENSORS, 0.1, -100, 1),
        (torch.rand(3), columns(HALF), columns(), SOFT, *NUMBERS, *TENSORS, 0.0, -100, 0),
    ],
    "cmi_update": lambda: [
        (new_state(5), columns(), HARD, None, None),
        (new_state(5, 2), columns(HALF), SOFT, torch.rand(3), torch.tensor([0, 1, 1])),
    ],
    "cmi_divergence": lambda: [
        (columns(), HARD, centroids()),
        (columns(HALF), SOFT, centroids()),
    ],
    "cmi_divergence_backward": lambda: [
        (torch.rand(3).double(), columns(), HARD, centroids()),
        (torch.rand(3).double(), columns(HALF), SOFT, centroids()),
    ],
    "augment": lambda: [
        op_arguments(example_plan(3), random_pixels(3)),
        op_arguments(example_plan(3, 2, 2, "cutmix"), random_pixels(3), HALF, True),
        op_arguments(example_plan(3, 1, 0, "mixup"), random_pixels(3)),
        op_arguments(replace(example_plan(3), values=None), random_pixels(3), torch.uint8),
    ],
}


def stem(name: str) -> str:
    """Return the name the backends know an op by."""
    return _ops.stem_of(name)


def runnable(name: str, backend: str):
    cases.require(stem(name), backend, torch.uint8 if name == "augment" else torch.float32)
    return _ops.overload(name, backend)


def dtype_of(name: str, arguments: tuple) -> torch.dtype:
    """Return the dtype that a backend must take to run an op with these arguments."""
    if name == "codes_unpack":
        return arguments[-1]
    place = 1 if name in ("cmi_update", "cmi_divergence_backward") else 0  # of the logits
    return tensors(arguments)[place].dtype


def samples(name: str, backend: str) -> list:
    """Return the samples in dtypes that ``backend`` takes; one at least."""
    found = [
        arguments
        for arguments in SAMPLES[name]()
        if can_run(stem(name), backend, "cpu", dtype_of(name, arguments)) is None
    ]
    assert found
    return found


def tensors(values) -> list[Tensor]:
    """Return the tensors in a tree of arguments or results, in order."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor)]
