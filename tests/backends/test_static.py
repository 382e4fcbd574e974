"""What the machine code proves without a GPU: no spills and 16-byte accesses, kernel by kernel.

A kernel that is not listed here fails, and so does a listed kernel that is gone.
"""

import functools
import itertools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import daqakd

from ..helpers import sass

ROOT = Path(__file__).parents[2]
LIBRARY = Path(daqakd.__file__).parent / "_C_cuda.so"
ARCHITECTURES = ("sm_80", "sm_90")
METHODS = ("LSQ", "PACT", "DoReFa", "EWGS")
ELEMENTS = {"float": 4, "half": 8, "bfloat16": 8}  # name -> elements in 16 bytes
QUANTIZERS = tuple(f"Device{name}" for name in ("NoQuantizer", *(f"{q}OfValue" for q in METHODS)))
STEPPED = ("PerChannel<LSQ<float>>", "PerChannel<SEQ<float>>")
CUDA_KERNELS = {
    "forward_runs": tuple(f"{groups},{op}" for groups in ("false", "true") for op in STEPPED),
    "forward_columns": STEPPED,
    "backward_runs": tuple(
        f"{groups},{op}" for groups in ("false", "true") for op in (*STEPPED, "PACTBackward")
    ),
    "map_kernel": (
        "PerChannel<PACT<float>>",
        "DoReFaActivation<float>",
        "PerTensor<DoReFaWeight<float>>",
        "PerTensor<DoReFaBinary<float>>",
        "DeviceEWGS",
        "DeviceLSQPlus",
    ),
    "kd_rows": ("4,8", "32,8", "32,32", "256,8", "256,32"),
    "kd_long": (),
    "bn_moments_runs": (),
}
CUDA_FLAT_KERNELS = {  # a tensor without channels: packs are whole, aligned or not
    "backward_runs": (
        "false,DoReFaActivationBackward<float>",
        "false,DeviceWeightBackward",
        "false,DeviceBinaryBackward",
        "false,DeviceEWGS",
        "false,DeviceLSQPlus",
    ),
}
CUDA_FLAT_READING_KERNELS = {  # they write a sum per block
    "backward_runs": ("false,TieGradient", "false,MeanGradient"),
}
CUDA_CHANNEL_READING_KERNELS = {"bn_backward_runs": QUANTIZERS}
CUDA_MANY_KERNELS = {  # rows that do not start on 16 bytes take the other branch of the same kernel
    "map_many_kernel": ("PerChannel<LSQ<float>>", "AnyWeight", "DeviceEWGS"),
    "backward_many_kernel": ("PerChannel<LSQ<float>>", "AnyWeightBackward", "DeviceEWGS"),
    "backward_columns": (*STEPPED, "PACTBackward"),
    "bn_moments_columns": (),
    "bn_forward_kernel": (  # true: with codes
        *(f"{quantizer},false" for quantizer in QUANTIZERS),
        *(f"{quantizer},true" for quantizer in QUANTIZERS[1:]),
    ),
    "bn_backward_kernel": QUANTIZERS,
}
CUDA_MANY_READING_KERNELS = {
    "magnitude_kernel": (),
    "magnitude_many_kernel": (),
    "backward_many_kernel": ("AnyMaximumGradient",),
    "bn_backward_columns": QUANTIZERS,
}
CUDA_PACKING_KERNELS = {"codes_pack_kernel": ()}  # of two packs or four they make a few bytes
CUDA_UNPACKING_KERNELS = {"codes_unpack_kernel": ()}
CUDA_SCALAR_KERNELS = {"reduce_kernel", "reduce_many_kernel", "kd_count"}
CUDA_SCALAR_KERNELS |= {"bn_merge_kernel", "bn_running_kernel", "bn_gradient_kernel"}
CUDA_SCALAR_KERNELS |= {  # pixels are bytes, moved and looked up one by one
    f"{name}<{element}>"
    for name in ("augment_kernel", "augment_mix_kernel")
    for element in ("unsignedchar", "double", *ELEMENTS)
}
# up to 16, 128, 1024 and more classes: lanes of a row, its items per lane, all in registers or not
ROW_SHAPES = ("16,1,true", "32,4,true", "32,32,true", "32,8,false")
CUDA_ROW_KERNELS = {
    f"{stem}<{element},{shape}{flag}>"
    for stem, flags in {
        "cmi_update_rows": ("",),
        "cmi_divergence_rows": (",false", ",true"),
    }.items()
    for element in ELEMENTS
    for shape in ROW_SHAPES
    for flag in flags
}
TRITON_KERNELS = {
    "lsq_forward_runs_kernel",
    "lsq_forward_columns_kernel",
    "lsq_backward_runs_kernel",
    "lsq_backward_columns_kernel",
    "pact_forward_flat_kernel",
    "pact_backward_runs_kernel",
    "pact_backward_columns_kernel",
    "dorefa_activation_forward_flat_kernel",
    "dorefa_activation_backward_flat_kernel",
    "dorefa_weight_forward_flat_kernel",
    "dorefa_weight_backward_flat_kernel",
    "ewgs_forward_flat_kernel",
    "ewgs_backward_flat_kernel",
    "lsqplus_forward_flat_kernel",
    "lsqplus_backward_flat_kernel",
    "kd_loss_tile_kernel",
    "kd_loss_long_kernel",
    "lsq_many_forward_kernel",
    "lsq_many_backward_kernel",
    "dorefa_weight_many_forward_kernel",
    "dorefa_weight_many_backward_kernel",
    "ewgs_many_forward_kernel",
    "ewgs_many_backward_kernel",
    "bn_forward_runs_kernel",
    "bn_forward_columns_kernel",
    "bn_backward_runs_kernel",
    "bn_backward_columns_kernel",
}
TRITON_READING_KERNELS = {  # they write a sum per program
    "dorefa_largest_flat_kernel",
    "dorefa_signed_sum_flat_kernel",
    "dorefa_maximum_backward_flat_kernel",
    "dorefa_weight_many_magnitude_kernel",
    "dorefa_weight_many_maximum_backward_kernel",
    "bn_moments_runs_kernel",
    "bn_moments_columns_kernel",
    "bn_backward_sums_runs_kernel",
    "bn_backward_sums_columns_kernel",
}
TRITON_READING_KERNELS |= {"codes_pack_flat_kernel"}
TRITON_WRITING_KERNELS = {"codes_unpack_flat_kernel"}  # they read a few bits an element
TRITON_SCALAR_KERNELS = {"reduce_kernel", "reduce_many_kernel"}
TRITON_SCALAR_KERNELS |= {"dorefa_maximum_reduce_kernel", "dorefa_mean_reduce_kernel"}
TRITON_SCALAR_KERNELS |= {"bn_statistics_reduce_kernel", "bn_gradient_reduce_kernel"}
TRITON_SCALAR_KERNELS |= {"augment_rows_kernel", "augment_mix_kernel"}
TRITON_VECTOR_KERNELS = TRITON_KERNELS | TRITON_READING_KERNELS | TRITON_WRITING_KERNELS
TRITON_ROW_KERNELS = {  # rows of any length start anywhere: no 16-byte accesses
    "cmi_update_rows_kernel",
    "cmi_divergence_rows_kernel",
    "cmi_divergence_backward_rows_kernel",
}


def variants(kernels: Mapping[str, tuple[str, ...]], vectorized: bool) -> set[str]:
    return {
        f"{stem}<{element},{vector if vectorized else 1}{',' * bool(ending)}{ending}>"
        for stem, endings in kernels.items()
        for ending in endings or ("",)
        for element, vector in ELEMENTS.items()
    }


def unvectored(kernels: Mapping[str, tuple[str, ...]]) -> set[str]:
    return {
        f"{stem}<{element}{',' * bool(ending)}{ending}>"
        for stem, endings in kernels.items()
        for ending in endings or ("",)
        for element in ELEMENTS
    }


CODES = CUDA_PACKING_KERNELS | CUDA_UNPACKING_KERNELS
CUDA_READING = variants(CUDA_FLAT_READING_KERNELS, True) | unvectored(CUDA_MANY_READING_KERNELS)
CUDA_READING |= variants(CUDA_PACKING_KERNELS, True) | variants(CUDA_CHANNEL_READING_KERNELS, True)
CUDA_WRITING = variants(CUDA_UNPACKING_KERNELS, True)
CUDA_VECTOR = variants(CUDA_KERNELS, True) | variants(CUDA_FLAT_KERNELS, True) | CUDA_READING
CUDA_VECTOR |= unvectored(CUDA_MANY_KERNELS) | CUDA_WRITING
CUDA_SCALAR = CUDA_SCALAR_KERNELS | CUDA_ROW_KERNELS | variants(CUDA_KERNELS | CODES, False)
CUDA_SCALAR |= variants(CUDA_CHANNEL_READING_KERNELS, False)
needs_tools = pytest.mark.skipif(sass.tool("cuobjdump") is None, reason="triton has no cuobjdump")
needs_library = pytest.mark.skipif(not LIBRARY.exists(), reason="installed without _C_cuda.so")


@functools.cache
def cuda() -> dict[tuple[str, str], sass.Kernel]:
    found = sass.kernels(LIBRARY)
    names = sass.short(name for name, _ in found)
    return {(names[name], arch): kernel for (name, arch), kernel in found.items()}


@functools.cache
def triton(*options: str) -> list[tuple[str, str, dict[str, int], str, sass.Kernel]]:
    command = [sys.executable, "-m", "tests.helpers.compile_triton", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return [(*row[:4], sass.Kernel(**row[4])) for row in rows]


@needs_tools
@needs_library
def test_every_cuda_kernel_is_listed():
    assert {name for name, _ in cuda()} == CUDA_VECTOR | CUDA_SCALAR


@needs_tools
@needs_library
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("name", sorted(CUDA_VECTOR | CUDA_SCALAR))
def test_cuda_kernel(name, architecture):
    kernel = cuda().get((name, architecture))
    if kernel is None:
        pytest.skip(f"the library was built without {architecture}")
    assert kernel.stack == 0, "it spills"
    if name in CUDA_VECTOR:
        assert kernel.loads >= (2 if "backward" in name else name not in CUDA_WRITING)
        assert kernel.stores >= (name not in CUDA_READING)


@needs_tools
def test_every_triton_kernel_is_listed():
    listed = TRITON_VECTOR_KERNELS | TRITON_SCALAR_KERNELS | TRITON_ROW_KERNELS
    assert {name for name, *_ in triton()} == listed


each_triton_kernel = pytest.mark.parametrize(
    ("name", "element", "architecture"),
    list(itertools.product(sorted(TRITON_VECTOR_KERNELS), ELEMENTS, ARCHITECTURES)),
)


def check_triton_kernel(name: str, element: str, architecture: str, *options: str) -> None:
    rows = [row for row in triton(*options) if row[:2] == (name, element)]
    found = [row[4] for row in rows if row[3] == architecture]
    assert found
    for kernel in found:
        assert kernel.stack == 0, "it spills"
        assert kernel.loads >= (2 if "backward" in name else name not in TRITON_WRITING_KERNELS)
        assert kernel.stores >= (name not in TRITON_READING_KERNELS)


@needs_tools
@each_triton_kernel
def test_triton_kernel(name, element, architecture):
    check_triton_kernel(name, element, architecture)


@needs_tools
@pytest.mark.slow
@each_triton_kernel
def test_triton_kernel_with_every_tile(name, element, architecture):
    check_triton_kernel(name, element, architecture, "--every-tile")


@needs_tools
@pytest.mark.parametrize("name", sorted(TRITON_SCALAR_KERNELS | TRITON_ROW_KERNELS))
def test_scalar_triton_kernel(name):
    assert all(row[4].stack == 0 for row in triton() if row[0] == name)


@needs_tools
@needs_library
def test_a_wild_row_of_a_plan_stops_a_kernel():
    """Nothing reads the plan back to check it, so the kernels that follow it do."""
    traps = {name: found.traps for (name, _), found in cuda().items() if "augment" in name}
    traps |= {row[0]: row[4].traps for row in triton() if "augment" in row[0]}
    assert len(traps) == 12
    assert all(traps.values())


@needs_tools
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(TRITON_ROW_KERNELS))
def test_row_triton_kernel_with_every_tile(name):
    assert all(row[4].stack == 0 for row in triton("--every-tile") if row[0] == name)
