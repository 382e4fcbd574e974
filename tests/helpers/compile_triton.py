"""Compile every Triton kernel for GPUs that are not there; print one JSON row per variant.

From the root, ``python -m tests.helpers.compile_triton``; ``--every-tile`` compiles each dtype and
architecture with every tile size. Runs as its own process, because one that interprets Triton
cannot compile it, and on all cores.
"""

import importlib
import itertools
import json
import multiprocessing
import os
import pkgutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import daqakd.kernels
import triton
from daqakd.kernels import _bn_sums, _bn_tile, _norm, _quantizers, kd_loss
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from . import sass

ArgumentKey = str | tuple[int, int]  # its name, or (argument, field) where the argument is a tuple
Tile = dict[ArgumentKey, Any]  # the arguments that are compiled in

ARCHITECTURES = (80, 90)
DTYPES = {"float": "fp32", "half": "fp16", "bfloat16": "bf16"}
SIZES = ["outer", "channels", "inner", "blocks", "numel", "width", "tiles", "down", "across"]
SIZES += ["repeats", "group", "offsets", "partial_offsets", "programs"]
SIZES += ["height", "chains", "slots", "channel_step", "pixel_step", "images", "settings"]
SIZES += ["rows", "classes", "groups", "stride", "steps", "count"]
ELEMENTS: tuple[str, ...] = ("x", "w", "y", "grad", "dx")  # pointers to the tensor's own dtype
ELEMENTS += ("logits", "student", "teacher")
ELEMENTS += ("residual", "activation", "grad_activation", "dresidual")
FLOATS: tuple[str, ...] = ("step", "partials", "out", "ds", "alpha", "lower", "upper")
FLOATS += ("delta_tensor", "lower_partials", "upper_partials", "maximum", "sums", "counts")
FLOATS += ("offset", "step_partials", "offset_partials")
FLOATS += ("soft_labels", "temperature", "ce_weight", "kd_weight", "upstream")
FLOATS += ("loss", "reduced", "ce", "kl")
FLOATS += ("outs", "real", "share", "values", "kept", "total")
FLOATS += ("statistics", "pulls", "parameter", "mean", "var", "momentum_tensor")
FLOATS += ("bias", "centred", "first", "second")
DOUBLES = ("soft", "weight", "centroids", "divergence", "row_grad", "wide_partials")
OTHERS = {"mask": "*u8", "largest": "*i32", "state": "*i64", "hard": "*i64", "group_of": "*i64"}
OTHERS |= dict.fromkeys(DOUBLES, "*fp64")
OTHERS |= {"moments.counts": "*fp64", "moments.means": "*fp64", "moments.squares": "*fp64"}
OTHERS |= {"elements.codes": "*u8"}
OTHERS |= {"norm.weight": "*fp32", "outs.norm": "*fp32"}  # other ops have weights in fp64
OTHERS |= {f"numbers.{name}": "fp32" for name in kd_loss.Numbers._fields if name != "ignore"}
OTHERS |= {"counter": "*i32", "row_sums": "*fp64"}
OTHERS |= {"labels": "*i64", "counted": "*i64", "ignore": "i64"}
OTHERS |= {"pixels": "*u8", "lut": "*u8", "scratch": "*u8"}
OTHERS |= {"bytes": "*u8", "flip": "*i1", "kind": "*i8", "setting": "*i16", "crop": "*i32"}
OTHERS |= {"integer": "*i32", "erase": "*i32", "box": "*i32", "index": "*i64", "partner": "*i64"}
TUPLES: dict[str, dict[str, Any]] = {  # arguments with named fields, by the start of a name
    "kd_loss": {"tensors": kd_loss.Tensors, "numbers": kd_loss.Numbers},
    "bn": {
        "elements": _bn_tile.Elements,
        "norm": _norm.Norm,
        "moments": _norm.Moments,
        "running": _norm.Running,
        "quantizer": _quantizers.Quantizer,
        "partials": _bn_sums.Sums,
        "outs": _bn_sums.Gradients,
    },
}
LISTED = 8  # tensors of a *_many launch; its arguments are tuples but for these
KD_OPTIONAL = ("soft_labels", "temperature", "ce_weight", "kd_weight", "counted", "upstream")
KD_PATHS = tuple(f"tensors.{name}" for name in KD_OPTIONAL)
BN_PATHS = ("elements.residual", "norm.weight", "norm.bias", "quantizer.delta_tensor")
# what a launch may pass None for, by name or tuple and field
OPTIONAL: dict[str, tuple[str, ...]] = {
    "kd_loss_tile_kernel": KD_PATHS,
    "kd_loss_long_kernel": KD_PATHS,
    "dorefa_weight_backward_flat_kernel": ("sums", "counts"),
    "dorefa_weight_many_backward_kernel": ("wide_partials",),
    "ewgs_backward_flat_kernel": ("delta_tensor",),
    "ewgs_many_backward_kernel": ("delta_tensor",),
    "codes_pack_flat_kernel": ("parameter",),
    "codes_unpack_flat_kernel": ("parameter",),
    "bn_statistics_reduce_kernel": ("moments",),
    "bn_gradient_reduce_kernel": ("outs.pulls", "outs.parameter", "outs.upper"),
    **dict.fromkeys(
        ("bn_forward_runs_kernel", "bn_forward_columns_kernel"),
        (*BN_PATHS, "elements.activation", "elements.codes"),
    ),
    **dict.fromkeys(
        ("bn_backward_sums_runs_kernel", "bn_backward_sums_columns_kernel"),
        (*BN_PATHS, "elements.grad_activation"),
    ),
    **dict.fromkeys(
        ("bn_backward_runs_kernel", "bn_backward_columns_kernel"),
        (*BN_PATHS, "elements.grad_activation", "elements.dresidual", "pulls"),
    ),
}
# of kernels with these flags, the pairs that are compiled; the heaviest first
CODES = ("METHOD", "ACTIVATION")
PAIRS = ((4, 2), (2, 1), (1, 0), (0, 2), (3, 1), (1, 1))
ALONE = ("partials", "wide_partials", "delta", "delta_tensor", "programs")
EVEN = ("inner", "numel", "width", "classes")  # sizes that a launch knows to be multiples of 16
INNERS: tuple[Tile, ...] = ({}, {"inner": 1})  # 1 is compiled in: channels that lie side by side
RUNS: tuple[Tile, ...] = ({"RUNS": 1, "BLOCK": 4096}, {"RUNS": 4, "BLOCK": 1024})
SLOTS: tuple[Tile, ...] = tuple({"SLOT": slot} for slot in (1, 2, 4, 8))
TILES: dict[str, list[Tile]] = {  # by what a name contains, the first that fits
    "augment": [{"BLOCK": 1024}],
    "codes": [{**slot, "BLOCK": 4096} for slot in SLOTS],
    "bn_forward_runs": [{**tile, **slot} for tile in RUNS for slot in SLOTS],
    "bn_forward_columns": [
        {"ROWS": 32, "COLUMNS": 128, **inner, **slot} for inner in INNERS for slot in SLOTS
    ],
    "flat": [{"BLOCK": 4096}],
    "runs": list(RUNS),
    "sums_columns": [{"ROWS": 16, "COLUMNS": 128, **inner} for inner in INNERS],
    "moments_columns": [{"ROWS": 16, "COLUMNS": 128, **inner} for inner in INNERS],
    "columns": [{"ROWS": 32, "COLUMNS": 128, **inner} for inner in INNERS],
    "rows": [
        {"ROWS": 32, "BLOCK": 16, "WHOLE": True},
        {"ROWS": 1, "BLOCK": 1024, "WHOLE": True},
        {"ROWS": 1, "BLOCK": 1024, "WHOLE": False},
    ],
    "reduce_many": [{"COUNT": LISTED, "BLOCK": 128}],
    "many": [{"COUNT": LISTED, "BLOCK": 1024}],
    "reduce": [{"BLOCK": 1024}],
    "tile": [{"ROWS": 8, "BLOCK": 128}, {"ROWS": 1, "BLOCK": 1024}, {"ROWS": 1, "BLOCK": 8192}],
    "long": [{"BLOCK": 2048}],
}


def kernels():
    for module in pkgutil.iter_modules(daqakd.kernels.__path__):
        loaded = importlib.import_module(f"daqakd.kernels.{module.name}")
        for name, value in vars(loaded).items():
            if name.endswith("_kernel") and value.__module__ == loaded.__name__:
                yield name, value


def kind(argument: str, dtype: str, owner: str = "") -> str:
    """Return the type of an argument, or of the field of one, ``owner``."""
    if f"{owner}.{argument}" in OTHERS:
        return OTHERS[f"{owner}.{argument}"]
    if argument in ELEMENTS:
        return f"*{dtype}"
    if argument in FLOATS:
        return "*fp32"
    if argument in OTHERS:
        return OTHERS[argument]
    return "i32" if argument in SIZES else "fp32"


def tuples(kernel) -> dict[str, Any]:
    """Return the arguments of a kernel that have named fields."""
    own = next((TUPLES[start] for start in TUPLES if kernel.__name__.startswith(start)), {})
    return {name: own[name] for name in (p.name for p in kernel.params) if name in own}


def constants(kernel, family: str) -> list[Tile]:
    """Return every tile with every choice of the kernel's flags and of what may be None."""
    found: list[Tile] = []
    names = [parameter.name for parameter in kernel.params]
    pairs = PAIRS if CODES[0] in names else ((),)
    for pair, tile in itertools.product(pairs, TILES[family]):
        fixed = tile | dict(zip(CODES, pair, strict=False))
        flags = [name for name in names if name.isupper() and name not in fixed]
        for values in itertools.product((False, True), repeat=len(flags)):
            found.append(fixed | dict(zip(flags, values, strict=True)))
    lacking = [path(kernel, name) for name in OPTIONAL.get(kernel.__name__, ())]
    return found + [one | dict.fromkeys(lacking) for one in found if lacking]


def path(kernel, name: str) -> ArgumentKey:
    """Return how Triton names an argument, or the field of one."""
    if "." not in name:
        return name
    owner, field = name.split(".")
    place = [parameter.name for parameter in kernel.params].index(owner)
    return place, tuples(kernel)[owner]._fields.index(field)


def compile_one(kernel, dtype: str, tile: Tile, architecture: int) -> sass.Kernel:
    names = [parameter.name for parameter in kernel.params]
    signature: dict[str, Any] = {n: "constexpr" if n in tile else kind(n, dtype) for n in names}
    with_fields = {n: of for n, of in tuples(kernel).items() if n not in tile}
    # What a launch tells the compiler: addresses and sizes are multiples of 16.
    even = [
        i for i, n in enumerate(names) if signature[n][0] == "*" or (n in EVEN and n not in tile)
    ]
    hints: dict[tuple[int, ...], list[Any]] = {
        (i,): [["tt.divisibility", 16]] for i in even if names[i] not in with_fields
    }
    for name, of in with_fields.items():
        i, kinds = names.index(name), [kind(field, dtype, name) for field in of._fields]
        kinds = ["constexpr" if (i, k) in tile else found for k, found in enumerate(kinds)]
        signature[name] = of(*kinds)
        hints |= {(i, k): [["tt.divisibility", 16]] for k, n in enumerate(kinds) if n[0] == "*"}
    if "COUNT" in tile:
        listed = [i for i, n in enumerate(names) if n not in tile and n not in ALONE]
        for i in listed:
            signature[names[i]] = (signature[names[i]],) * tile["COUNT"]
        paths = [(i, k) if i in listed else (i,) for i in even for k in range(tile["COUNT"])]
        hints = {path: [["tt.divisibility", 16]] for path in paths}
    source = ASTSource(kernel, signature=signature, constexprs=tile, attrs=hints)
    warps = 4 if kernel.__name__.endswith("reduce_kernel") or "COUNT" in tile else 8
    if "ROWS" in tile and "COLUMNS" not in tile:
        warps = max(4, tile["BLOCK"] // 512)
    options = {"num_warps": warps, "enable_fp_fusion": False}
    if kernel.__name__.endswith(("rows_kernel", "augment_mix_kernel")):
        options = sys.modules[kernel.__module__].OPTIONS
    compiled = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(compiled.asm["cubin"])
        found = list(sass.kernels(file).values())
    assert len(found) == 1
    found[0].traps = "__assertfail" in compiled.asm["ptx"]
    return found[0]


def variants(name: str, kernel):
    """Yield dtype, short name, constants, architecture; without --every-tile one choice each."""
    family = next(family for family in TILES if family in name)
    choices = constants(kernel, family)
    dtypes = {"float": "fp32"} if family.startswith("reduce") else DTYPES
    pairs = itertools.product(dtypes.items(), ARCHITECTURES)
    for turn, ((shown, dtype), architecture) in enumerate(pairs):
        # two architectures: every other dtype starts with the next choice, so all pairs are met
        one = choices[(turn + turn // 2) % len(choices)]
        for tile in choices if "--every-tile" in sys.argv else [one]:
            yield shown, dtype, tile, architecture


def report(name: str, shown: str, dtype: str, tile: Tile, architecture: int) -> str:
    found = compile_one(dict(kernels())[name], dtype, tile, architecture)
    shown_tile = {str(place): value for place, value in tile.items()}
    return json.dumps([name, shown, shown_tile, f"sm_{architecture}", vars(found)])


def main() -> None:
    work = [(name, *one) for name, kernel in kernels() for one in variants(name, kernel)]
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        for line in pool.starmap(report, work, chunksize=1):
            print(line)


if __name__ == "__main__":
    main()
