"""``export_onnx``: a student as an ONNX file with integer weights, which other runtimes read."""

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .._arguments import check_flag, check_module, path_of
from .._errors import InputError, first_line, seen
from .._files import write_bytes
from ..quant.affine import ActivationAffine
from ..quant.layers import QuantLayer
from ..quant.operands import Operand, QuantInput
from ..quant.origin import arguments_of
from .batchnorm import FOLDABLE, FoldedWeight, axis_of
from .example import Example, inputs_of, open_shapes
from .qdq import INT4_BITS, INT4_OPSET, IntegerWeight, QDQActivation, affine_of
from .standalone import standalone

LOWEST_OPSET = 18  # what torch translates to
NEEDED = ("onnx", "onnxscript")


def export_onnx(
    student: nn.Module,
    path: str | Path,
    example: Example,
    *,
    fold_batchnorm: bool = True,
    opset: int = INT4_OPSET,
    dynamic_batch: bool = True,
) -> None:
    """Write a student as an ONNX file, replaced atomically.

    Weights are integers with DequantizeLinear: of 4 bits to 4-bit codes, of more to int8, and
    int8 for all below opset 21. Activations are QuantizeLinear and DequantizeLinear, with a Clip
    between for codes of less than 8 bits (QCDQ). Scales are per tensor, or per output channel.
    DoReFa's and EWGS's levels lie at odd multiples of half a step: at 4 and 8 bits an Add of half a
    step follows. A runtime's outputs are the student's, but where an activation lies within
    rounding of a boundary between two levels.

    Args:
        student: what :func:`daqakd.quantize` returned, calibrated; exported in float32.
        path: of the file.
        example: a batch for the student's forward pass: a tensor, a tuple, or a dictionary of
            keyword arguments. Only shapes and types matter.
        fold_batchnorm: first :func:`daqakd.fold_batchnorm`.
        opset: version of the operators, from 18 on.
        dynamic_batch: leave the first dimension of all inputs open.

    Raises:
        InputError: no student; not calibrated; ``onnx`` or ``onnxscript`` is not installed; torch
            cannot export the model.
        OSError: the file cannot be written.
    """
    place = path_of("path", path)
    _check(student, opset, fold_batchnorm, dynamic_batch)
    args, kwargs = inputs_of(example)
    twin = _with_qdq(student, opset, fold_batchnorm)
    program = _exported(twin, args, kwargs, opset, dynamic_batch)
    _finish(program, twin)
    program.model.metadata_props["daqakd"] = json.dumps(arguments_of(student))
    write_bytes(place, program.model_proto.SerializeToString())


def _check(student: Any, opset: Any, *flags: Any) -> None:
    check_module("student", student)
    for name, value in zip(("fold_batchnorm", "dynamic_batch"), flags, strict=True):
        check_flag(name, value)
    if isinstance(opset, bool) or not isinstance(opset, int) or opset < LOWEST_OPSET:
        raise InputError(f"opset: expected an integer from {LOWEST_OPSET} on, got {seen(opset)}")
    if not any(isinstance(module, QuantLayer) for module in student.modules()):
        raise InputError(
            "student: has no quantized layer; pass what quantize() returns, or export by torch.onnx"
        )
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(f"export_onnx: needs {' and '.join(missing)}; pip install 'daqakd[onnx]'")


def _with_qdq(student: nn.Module, opset: int, fold: bool) -> nn.Module:
    """Return a float32 copy on the CPU whose quantizers are ONNX's."""
    twin = standalone(student, fold).float()
    for reader in [m for m in twin.modules() if isinstance(m, QuantInput)]:
        if reader.act_quantizer is not None:
            reader.act_quantizer = QDQActivation(_affine(reader), opset)  # type: ignore[assignment]
        if isinstance(reader, QuantLayer) and reader.weight_quantizer is not None:
            _make_integer(reader, opset)
    return twin


def _affine(reader: Any) -> ActivationAffine:
    """Return what a reader's quantizer does; an operand's values keep the range of its input."""
    affine = affine_of(reader.act_quantizer)
    if isinstance(reader, Operand) and affine.shift is not None:
        return affine._replace(size=affine.step, base=affine.shift)
    return affine


@torch.no_grad()
def _make_integer(layer: Any, opset: int) -> None:
    """Give a layer integer weights, with its output scale in their scale and in the bias."""
    weights, own_bias = layer.weight_quantizer, layer._parameters.get("bias")
    if layer.output_scale is not None and (layer.bias is None or own_bias is not None):
        scale = layer.output_scale.abs()
        weights = FoldedWeight(weights, scale)
        if own_bias is not None:
            layer.bias = nn.Parameter(own_bias * scale)
        layer.output_scale = None
    layer.weight_quantizer = integers = IntegerWeight(weights, layer.weight, axis_of(layer), opset)
    if own_bias is not None and integers.bits == INT4_BITS and layer.plain in FOLDABLE:
        _add_bias_after(layer)


def _add_bias_after(layer: Any) -> None:
    """Add a layer's bias to what it gives, where no integer kernel would take it.

    onnxruntime rounds biases to whole products of two steps, large ones at 4 bits, all the same.
    """
    shape = [-1, *[1] * (layer.weight.dim() - 2)]
    layer.register_buffer("bias_after", layer.bias.detach().view(shape))
    layer.bias = None
    layer.register_forward_hook(_plus_bias)


def _plus_bias(layer: Any, args: Any, output: Tensor) -> Tensor:
    y: Tensor = output + layer.bias_after
    return y


def _exported(
    model: nn.Module,
    args: tuple[Tensor, ...],
    kwargs: dict[str, Tensor],
    opset: int,
    dynamic_batch: bool,
) -> Any:
    """Return torch's ONNX program."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.onnx.export(
                model,
                args,
                kwargs=kwargs,
                dynamo=True,
                opset_version=opset,
                dynamic_shapes=open_shapes(args, kwargs) if dynamic_batch else None,
                verbose=False,
            )
    except Exception as error:  # whatever a stranger's code raises while it is traced
        raise InputError(
            f"student: torch.onnx cannot export it ({first_line(error)}); see that"
            " torch.export.export takes the model, or pass dynamic_batch=False"
        ) from error


def _finish(program: Any, model: nn.Module) -> None:
    """Make 4-bit codes such, and drop what can be inferred or is torch's own: it is large."""
    from onnx_ir.passes.common import DeduplicateInitializersPass

    graph = program.model.graph
    for name, module in model.named_modules():
        if isinstance(module, IntegerWeight) and module.bits == INT4_BITS:
            for part in ("codes", "zero"):
                _narrow(graph.initializers.get(f"{name}.{part}" if name else part))
    DeduplicateInitializersPass()(program.model)
    for made in (v for found in graph.all_nodes() for v in found.outputs if v not in graph.outputs):
        made.shape = made.type = None
    values = *graph.inputs, *graph.outputs, *graph.initializers.values()
    for part in (program.model, graph, *graph.all_nodes(), *values):
        part.metadata_props.clear()


def _narrow(value: Any) -> None:
    """Turn an initializer to int4."""
    if value is None:
        return
    import ml_dtypes
    import onnx_ir

    codes = np.asarray(value.const_value.numpy()).astype(ml_dtypes.int4)
    value.const_value = onnx_ir.tensor(codes, name=value.name)
    value.dtype = onnx_ir.DataType.INT4
