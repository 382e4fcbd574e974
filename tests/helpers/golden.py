"""Results that have the same bits on every machine: ops, packed codes, draws, pixels.

Inputs come from our own draws. Left out is what a machine's libraries decide: convolutions, matrix
products, sums and transcendental functions of PyTorch. The compiled ops bring their own.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from itertools import product
from math import prod

import torch
from torch import Tensor

from daqakd import ResizedCrop
from daqakd._ops import overload, slot_bits
from daqakd._packing import pack_codes, unpack_codes
from daqakd.augment import draws
from daqakd.augment.plan import Planner, normalised_values
from daqakd.augment.policies import POLICIES, policy
from daqakd.functional import augment
from daqakd.functional.cmi import new_state

from . import cases
from .drawn import SHAPE, images, near_ties, numbers, words

SEMANTICS = ("pil", "torchvision")
Results = tuple[list[Tensor], list[Tensor]]  # of every backend, of the compiled one alone


def parameters(axis: int | None, dtype: torch.dtype) -> Tensor:
    """Return a parameter, or one per channel, between 0.25 and 1.25."""
    shape = () if axis is None else (SHAPE[axis],)
    return numbers(shape, cases.parameter_dtype(dtype), 9).abs() / 4 + 0.25


def ends(dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    own = cases.parameter_dtype(dtype)
    return torch.tensor(-0.7, dtype=own), torch.tensor(0.9, dtype=own)


def lsq(dtype: torch.dtype, backend: str) -> Results:
    g = numbers(SHAPE, dtype, 1)
    forward, backward = (overload(f"lsq_{way}", backend) for way in ("forward", "backward"))
    elements, sums = [], []
    for axis in (None, 1):
        step = parameters(axis, dtype)
        x = near_ties(dtype, float(step.flatten()[0]))
        elements.append(forward(x, step, -8, 7, axis))
        for ste in range(3):
            dx, ds = backward(g, x, step, -8, 7, axis, ste, 0.5)
            elements.append(dx)
            sums.append(ds)
    return elements, sums


def pact(dtype: torch.dtype, backend: str) -> Results:
    g = numbers(SHAPE, dtype, 1)
    forward, backward = (overload(f"pact_{way}", backend) for way in ("forward", "backward"))
    elements, sums = [], []
    for axis, signed in ((None, False), (1, True)):
        alpha = parameters(axis, dtype)
        x = near_ties(dtype, float(alpha.flatten()[0]) / (7 if signed else 15))
        y, mask = forward(x, alpha, 4, signed, axis)
        dx, dalpha = backward(g, mask, alpha, signed, axis)
        elements += [y, mask, dx]
        sums.append(dalpha)
    return elements, sums


def dorefa_activation(dtype: torch.dtype, backend: str) -> Results:
    x, g = near_ties(dtype, 1 / 7), numbers(SHAPE, dtype, 1)
    elements = []
    for bits, signed in ((1, False), (4, True)):
        y, mask = overload("dorefa_activation_forward", backend)(x, bits, signed)
        elements += [y, mask, overload("dorefa_activation_backward", backend)(g, mask)]
    return elements, []


def dorefa_weight(dtype: torch.dtype, backend: str) -> Results:
    w, g = (numbers(SHAPE, dtype, stream) for stream in (0, 1))
    results: list[Tensor] = []
    for bits in (1, 4):
        results += overload("dorefa_weight_forward", backend)(w, bits)
        backward = partial(overload("dorefa_weight_backward", backend), g, w, results[-1], bits)
        results += [backward(detach) for detach in (True, False)]
    return [], results


def ewgs(dtype: torch.dtype, backend: str) -> Results:
    x, g = near_ties(dtype, 1.6 / 15) + ends(dtype)[0].to(dtype), numbers(SHAPE, dtype, 1)
    forward, backward = (overload(f"ewgs_{way}", backend) for way in ("forward", "backward"))
    elements, sums = [], []
    for bits in (1, 4):
        dx, *rest = backward(g, x, *ends(dtype), bits, 0.25, None)
        elements += [forward(x, *ends(dtype), bits), dx]
        sums += rest
    return elements, sums


def lsqplus(dtype: torch.dtype, backend: str) -> Results:
    grid = torch.tensor([1.6 / 15, -0.3], dtype=cases.parameter_dtype(dtype)).unbind()
    x, g = near_ties(dtype, 1.6 / 15) - 0.3, numbers(SHAPE, dtype, 1)
    forward, backward = (overload(f"lsqplus_{way}", backend) for way in ("forward", "backward"))
    elements, sums = [], []
    for bits in (1, 4):
        dx, *rest = backward(g, x, *grid, bits, 0.25)
        elements += [forward(x, *grid, bits), dx]
        sums += rest
    return elements, sums


def seq(dtype: torch.dtype, backend: str) -> Results:
    forward, backward = (overload(f"seq_{way}", backend) for way in ("forward", "backward"))
    elements, sums = [], []
    for levels, axis in ((4, None), (3, 1), (256, 1)):
        step = parameters(axis, dtype)
        x, g = near_ties(dtype, float(step.flatten()[0]) / 2), numbers(SHAPE, dtype, 1)
        dx, ds = backward(g, x, step, levels, axis, 0.25)
        elements += [forward(x, step, levels, axis), dx]
        sums.append(ds)
    return elements, sums


def bn_act_quant(dtype: torch.dtype, backend: str) -> Results:
    """Normalize, add, activate and quantize by every method, along long runs and short ones."""
    forward, backward = (
        overload(f"bn_act_quant_{way}", backend) for way in ("forward", "backward")
    )
    own, results = cases.parameter_dtype(dtype), []
    given = {1: (parameters(None, dtype), None), 2: (parameters(None, dtype), None), 4: ends(dtype)}
    for method, shape in product((1, 2, 3, 4, 0), ((4, 5, 150), (150, 20))):
        x, r, g = (numbers(shape, dtype, place) for place in range(3))
        norm = [numbers(shape[1:2], own, place) for place in range(3, 6)]
        quantizer = method, *given.get(method, (None, None)), 3, False
        var = norm[2].abs() + 0.5
        y, t, statistics, codes = forward(
            *(x, r, *norm[:2], norm[2], var, True, 0.1, None, 1e-5, 1, *quantizer, True, method > 0)
        )
        gradients = backward(
            *(g, r, x, r, statistics, *norm[:2], True, 1, *quantizer, 0, 0.5, 0.25, None, True)
        )
        results += [y, t, statistics, codes, norm[2], var, *gradients]
    return [], results


def codes(dtype: torch.dtype, backend: str) -> Results:
    """Pack the values of all methods, in slots of every width."""
    step, results = parameters(None, dtype), []
    for method, parameter in enumerate((step, step, None, None), 1):
        for bits in (1, 2, 3, 8):
            signed = bits > 1 and method < 4
            count, slot = prod(SHAPE), slot_bits(bits)
            packed = (words(-(-count * slot // 8), bits) & 255).to(torch.uint8)
            grid = parameter, method, bits, signed
            y = overload("codes_unpack", backend)(packed, *grid, count, dtype)
            results += [y, overload("codes_pack", backend)(y, *grid)]
    return results, []


def many(dtype: torch.dtype, backend: str) -> Results:
    """Run all quantizers of lists; their sums and DoReFa are native."""
    x, g = ([numbers((3, n), dtype, s + n) for n in (5, 800)] for s in (0, 1))
    step, low, high = [parameters(None, dtype)] * 2, *([end] * 2 for end in ends(dtype))
    elements = [
        *overload("lsq_many_forward", backend)(x, step, [-8, -2], [7, 1]),
        *overload("ewgs_many_forward", backend)(x, low, high, [4, 1]),
    ]
    backward = overload("lsq_many_backward", backend)
    dx, ds = backward(g, x, step, [-8, -2], [7, 1], 0, [0.5, 1.0])
    others = overload("ewgs_many_backward", backend)(g, x, low, high, [4, 1], 0.25, None)
    elements += [*dx, *others[0]]
    sums = [*ds, *(end for rest in others[1:] for end in rest)]
    if backend == "native":
        y, largest = overload("dorefa_weight_many_forward", backend)(x, [4, 1])
        backward = overload("dorefa_weight_many_backward", backend)
        sums += [*y, largest, *backward(g, x, largest, [4, 1], False)]
    return elements, sums


def soft_labels(rows: int, classes: int) -> Tensor:
    """Return probabilities: float64 ``[rows, classes]``."""
    weight = (words(rows * classes, 3) & 1023).double().view(rows, classes) + 1
    return weight / weight.sum(1, keepdim=True)  # a sum of whole numbers is exact


def kd_loss(dtype: torch.dtype, backend: str) -> Results:
    forward, backward = (overload(f"kd_loss_{way}", backend) for way in ("forward", "backward"))
    results: list[Tensor] = []
    for rows, classes in ((64, 10), (7, 1003)):
        z, t = (4 * numbers((rows, classes), dtype, stream) for stream in (0, 1))
        for labels in (torch.arange(rows) % classes, soft_labels(rows, classes), None):
            arguments = z, t, labels, 4.0, 1.0, 2.0, None, None, None, 0.0, -100
            results += forward(*arguments, 1, True)
            g = torch.tensor(0.5, dtype=cases.parameter_dtype(dtype))
            results.append(backward(g, *arguments, 1))
    return [], results


def cmi(dtype: torch.dtype, backend: str) -> Results:
    z, centroids = 4 * numbers((64, 10), dtype, 0), soft_labels(10, 10)
    results = []
    for labels in (torch.arange(64) % 10, soft_labels(64, 10)):
        state = new_state(10)
        overload("cmi_update", backend)(state, z, labels, None, None)
        rows = overload("cmi_divergence", backend)(z, labels, centroids)
        backward = overload("cmi_divergence_backward", backend)
        results += [state, rows, backward(rows, z, labels, centroids)]
    return [], results


def pixels(name: str, semantics: str, backend: str) -> Results:
    """Augment 240 draws of a policy: as bytes, mixed and normalised, and erased."""
    values = normalised_values((0.49, 0.48, 0.44), (0.2, 0.3, 0.25))
    index, results = torch.arange(240) % 12, []
    for mixing in (None, "cutmix", "mixup"):
        planner = Planner(
            *(policy(name, 32, 32, semantics), 32, 32),
            pad=4,
            flip=True,
            erasing=mixing is None,
            mixing=mixing,
            box="image",
            values=values,
            seed=5,
        )
        partner = None if mixing is None else draws.permutation(5, 1, torch.arange(240))
        plan = planner.plan(3, torch.arange(240), partner)
        plan.index.copy_(index)
        dtypes = (torch.float32,) if mixing == "mixup" else (torch.float32, torch.bfloat16)
        results += [augment(images(), plan, dtype=dtype, backend=backend) for dtype in dtypes]
    return results, []


def resized(semantics: str, backend: str) -> Results:
    """Crop, resize and jitter, on any backend in plain PyTorch."""
    pipeline = ResizedCrop(24, jitter=(0.4, 0.4, 0.4, 0.1))
    index = torch.arange(96)
    return [pipeline.apply(images(), index % 12, 5, 2, index, semantics)], []


def drawn(backend: str) -> Results:
    index = torch.arange(0, 2**40, 2**40 // 999)
    found = draws.philox(2**31 + 5, 3, index, 17)
    return [
        found,
        draws.uniform(found),
        draws.choose(found, 1000),
        draws.image_seeds(1, 2, index),
        draws.permutation(1, 2, index),
    ], []


def packed(backend: str) -> Results:
    results = []
    for bits in range(1, 9):
        codes = (words(1001, bits) & (2**bits - 1)).numpy()
        stream = pack_codes(codes, bits)
        assert (unpack_codes(stream, bits, codes.shape) == codes).all()
        results.append(torch.from_numpy(stream))
    return results, []


def for_each_dtype(*ops: Callable) -> dict[str, Callable[[str], Results]]:
    return {
        f"{op.__name__}-{cases.dtype_name(dtype)}": partial(op, dtype)
        for op, dtype in product(ops, cases.DTYPES)
    }


EVERYWHERE = for_each_dtype(lsq, pact, dorefa_activation, ewgs, lsqplus, seq, codes, many) | {
    f"{name}-{semantics}": partial(pixels, name, semantics)
    for name, semantics in product(POLICIES, SEMANTICS)
}
COMPILED = for_each_dtype(
    dorefa_weight, bn_act_quant, kd_loss, cmi
)  # elsewhere by PyTorch's exp and sums
PLAIN: dict[str, Callable[[str], Results]] = {
    **{f"resized-{semantics}": partial(resized, semantics) for semantics in SEMANTICS},
    "draws": drawn,
    "packed": packed,
}
RESULTS = EVERYWHERE | COMPILED | PLAIN
BACKENDS = {"reference": EVERYWHERE | PLAIN, "native": EVERYWHERE | COMPILED}
RUNS = [(name, backend) for backend, names in BACKENDS.items() for name in names]


def _digest(tensors: list[Tensor]) -> str:
    whole = hashlib.sha256()
    for tensor in tensors:
        whole.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        whole.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return whole.hexdigest()[:16]


def hashes(name: str, backend: str) -> dict[str, str]:
    """Return the hashes of what every backend gives, and of what the compiled one adds."""
    shared, own = RESULTS[name](backend)
    found = {"shared": shared, "native": own if backend == "native" else []}
    return {kind: _digest(tensors) for kind, tensors in found.items() if tensors}
