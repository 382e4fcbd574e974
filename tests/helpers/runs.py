"""Runs of every op on shapes that reach each way the work is cut."""

from functools import partial

import torch
from torch import Tensor

from daqakd._ops import overload

from . import cases

SHAPES = {  # shape, axis: each way the work is cut
    "tensor": ((300_001,), None),
    "rows": ((6, 40_000), 0),
    "images": ((64, 24, 7, 7), 1),
    "columns": ((5_000, 70), 1),
    "folded-columns": ((30_000, 3), 1),
    "short-runs": ((500, 50, 3, 3), 1),
    "wide": ((40, 5_003), 1),
}
SMALL = {  # likewise, for kernels that are emulated
    "small-tensor": ((20_001,), None),
    "small-rows": ((3, 9_001), 0),
    "small-images": ((9, 24, 7, 7), 1),
    "small-columns": ((300, 70), 1),
    "small-folded-columns": ((3_000, 3), 1),
    "small-short-runs": ((60, 50, 3, 3), 1),
    "small-wide": ((40, 203), 1),
    "small-groups": ((13, 5, 328), 1),  # 328 times its reciprocal is less than 1
}


def inputs(name: str, dtype: torch.dtype, device: str = "cpu") -> tuple[Tensor, Tensor, int | None]:
    shape, axis = (SHAPES | SMALL)[name]
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
    channels = () if axis is None else (shape[axis],)
    step = torch.rand(channels, generator=generator, dtype=torch.float64) * 0.3 + 0.1
    return x.to(device), step.to(device, cases.parameter_dtype(dtype)), axis


def run_lsq(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    """Run LSQ forward and backward."""
    x, step, axis = inputs(name, dtype, device)
    y = overload("lsq_forward", backend)(x, step, -8, 7, axis)
    return [y, *overload("lsq_backward", backend)(x.flip(0), x, step, -8, 7, axis, 0, 0.5)]


def run_pact(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    x, step, axis = inputs(name, dtype, device)
    y, mask = overload("pact_forward", backend)(x, step * 8, 4, True, axis)
    return [y, mask, *overload("pact_backward", backend)(x.flip(0), mask, step, True, axis)]


def run_activation(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    x, _, _ = inputs(name, dtype, device)
    y, mask = overload("dorefa_activation_forward", backend)(x, 4, True)
    return [y, mask, overload("dorefa_activation_backward", backend)(x.flip(0), mask)]


def run_weight(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    w, results = inputs(name, dtype, device)[0], []
    for bits in (1, 4):
        results += overload("dorefa_weight_forward", backend)(w, bits)
        backward = partial(overload("dorefa_weight_backward", backend), w.flip(0), w)
        results += [backward(results[-1], bits, detach) for detach in (True, False)]
    return results


def run_ewgs(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    x = inputs(name, dtype, device)[0]
    ends = torch.tensor([-0.7, 0.9], dtype=cases.parameter_dtype(dtype), device=device).unbind()
    y = overload("ewgs_forward", backend)(x, *ends, 4)
    return [y, *overload("ewgs_backward", backend)(x.flip(0), x, *ends, 4, 0.1, None)]


def run_lsqplus(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    x, parameter = inputs(name, dtype, device)[0], cases.parameter_dtype(dtype)
    grid = torch.tensor([0.11, -0.7], dtype=parameter, device=device).unbind()
    y = overload("lsqplus_forward", backend)(x, *grid, 4)
    return [y, *overload("lsqplus_backward", backend)(x.flip(0), x, *grid, 4, 0.25)]


def run_seq(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    """Run SEQ between levels around 0, and with one there."""
    (x, step, axis), results = inputs(name, dtype, device), []
    for levels in (4, 3):
        results.append(overload("seq_forward", backend)(x, step, levels, axis))
        results += overload("seq_backward", backend)(x.flip(0), x, step, levels, axis, 0.5)
    return results


def run_codes(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    """Pack and unpack: in slots of 4 bits, and where 256 levels crowd in 16 bits."""
    x, results = inputs(name, dtype, device)[0], []
    for bits, step in ((4, 0.3), (8, 0.02)):
        own = torch.tensor(step, dtype=cases.parameter_dtype(dtype), device=device)
        y = overload("lsq_forward", backend)(x, own, 0, 2**bits - 1, None)
        codes = overload("codes_pack", backend)(y, own, 1, bits, False)
        arguments = codes, own, 1, bits, False, y.numel(), dtype
        results += [codes, overload("codes_unpack", backend)(*arguments)]
    return results


def run_cmi(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    """Take the first rows of 37 classes, with hard labels and with soft ones."""
    x = inputs(name, dtype, device)[0].reshape(-1)
    z = x[: min(500, x.numel() // 37) * 37].reshape(-1, 37) * 4
    hard, q = torch.arange(len(z), device=device) % 37, z[:37].double().softmax(1)
    state = torch.zeros(3, 37, 42, 2, dtype=torch.int64, device=device)
    results = [state]
    for labels in (hard, z.flip(0).double().softmax(1)):
        overload("cmi_update", backend)(state, z, labels, None, hard % 3)
        rows = overload("cmi_divergence", backend)(z, labels, q)
        results += [rows, overload("cmi_divergence_backward", backend)(rows, z, labels, q)]
    return results


def run_kd_loss(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    x, classes = inputs(name, dtype, device)[0].reshape(-1), KD_CLASSES[name]
    z = x[: x.numel() // classes * classes].reshape(-1, classes)
    t, y = 3 * z.flip(0), torch.arange(len(z), device=device) % classes - 1
    settings, g = (4.0, 1.0, 2.0, None, None, None), y.to(cases.parameter_dtype(dtype)) / classes
    forward, backward = (overload(f"kd_loss_{way}", backend) for way in ("forward", "backward"))
    return [
        *forward(z, t, y, *settings, 0.0, -1, 1, True),
        *forward(z, t, t.float().softmax(1), *settings, 0.1, -1, 0, True),
        backward(g[0], z, t, None, *settings, 0.0, -1, 2),
        backward(g, z, t, y, *settings, 0.1, -1, 0),
    ]


def run_bn_act_quant(
    name: str, dtype: torch.dtype, backend: str = "native", device: str = "cpu"
) -> list[Tensor]:
    """Run the norm of a batch alone, then quantizers where the statistics are given."""
    x, step, axis = inputs(name, dtype, device)
    x, step = (x.reshape(-1, 1), step[None]) if axis is None else (x.movedim(axis, 1), step)
    norm, parameters = (step - 0.2, step + 0.7), (step[0], step[0] + 3)
    given, batch = [step.clone(), step + 1], [step.clone(), step + 1]
    forward, backward = (
        overload(f"bn_act_quant_{way}", backend) for way in ("forward", "backward")
    )
    of_batch = *batch, True, 0.1, None, 1e-5, 1, 0, *NO_QUANTIZER
    results = forward(x, x.flip(0), *norm, *of_batch, True, False)
    results += tuple(batch)
    for method, signed in ((1, True), (4, False)):
        upper, bits = (None, 3) if signed else (parameters[1], 1)
        quantizer = method, parameters[0], upper, bits, signed
        by_given = *given, False, 0.1, None, 1e-5, 2, *quantizer
        results += forward(x, None, *norm, *by_given, True, True)
        tensors = x.flip(0), x if signed else None, x, None if signed else x.flip(0)
        results += backward(
            *tensors, torch.stack(given), *norm, signed, 1, *quantizer, 0, 0.5, 0.1, None, signed
        )
    return list(results)


NO_QUANTIZER = None, None, 8, False  # two parameters, bits, signed
# each way a row is cut; 30,000 rows of "tensor" have their labels counted by a launch of its own
KD_CLASSES = dict(zip(SHAPES, (10, 40_000, 1500, 70, 3, 1000, 5003), strict=True))
KD_CLASSES |= dict(zip(SMALL, (10, 9_001, 1500, 70, 3, 1000, 2030, 400), strict=True))
RUNS = {
    "lsq": run_lsq,
    "pact": run_pact,
    "dorefa_activation": run_activation,
    "dorefa_weight": run_weight,
    "ewgs": run_ewgs,
    "lsqplus": run_lsqplus,
    "seq": run_seq,
    "codes": run_codes,
    "cmi": run_cmi,
    "kd_loss": run_kd_loss,
    "bn_act_quant": run_bn_act_quant,
}
