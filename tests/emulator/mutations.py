"""Faults to plant in the CUDA sources, one at a time; ``mutants.py`` requires that tests fail.

Each is a file of ``csrc/cuda``, what stands there (its first occurrence), what shall, and the
object to compile anew. One that no test can see says why the program is still right.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One fault."""

    file: str
    old: str
    new: str
    stem: str
    beyond: str = ""  # tests of more than 2^31 elements that see it where the others do not
    equivalent: str = ""


def without(file: str, old: str, part: str, stem: str) -> Mutation:
    """Leave a part of ``old`` out."""
    return Mutation(file, old, old.replace(part, "", 1), stem)


BARRIER = "\n  __syncthreads();"
INNER_BARRIER = "\n    __syncthreads();"
SYNCHRONIZATION = [
    without("reduce.cuh", f"warps[threadIdx.x / 32] = value;{BARRIER}\n  T sum", BARRIER, "lsq"),
    without("reduce.cuh", f"warps[threadIdx.x / 32] = value;{BARRIER}\n  for", BARRIER, "dorefa"),
    without("backward_kernels.cuh", f"total * scale;{INNER_BARRIER}", INNER_BARRIER, "ewgs"),
    without("backward_kernels.cuh", f"total * scale;{INNER_BARRIER}", INNER_BARRIER, "ewgs_many"),
    without("backward_kernels.cuh", f"sums[i][0];{BARRIER}", BARRIER, "lsq"),
    without("dorefa.cuh", f"blocks + i); }});{INNER_BARRIER}", INNER_BARRIER, "dorefa_weight_many"),
    without("kd_rows.cuh", f"total = 0;{BARRIER}", BARRIER, "kd_loss"),
    without("kd_rows.cuh", f"{BARRIER}\n  return total > 0", BARRIER, "kd_loss"),
    without("counter.cuh", f"{INNER_BARRIER}\n    if (last)", INNER_BARRIER, "kd_loss"),
    without("kd_rows.cuh", f"values[k];{INNER_BARRIER}", INNER_BARRIER, "kd_loss"),
    without("reduce.cuh", f"  }}{BARRIER}\n#pragma unroll\n  for (int k", BARRIER, "kd_loss"),
    without("counter.cuh", "      __threadfence();\n", "      __threadfence();\n", "kd_loss"),
    without("counter.cuh", "if (last) __threadfence();", "if (last) __threadfence();", "kd_loss"),
    without("kd_loss.cu", f"total = 0;{BARRIER}", BARRIER, "kd_loss"),
    without("kd_loss.cu", f"found);{BARRIER}", BARRIER, "kd_loss"),
    without("bn_statistics.cuh", f"maker.count;{BARRIER}", BARRIER, "bn_act_quant"),
    without("bn_statistics.cuh", f"sums[i];{INNER_BARRIER}", INNER_BARRIER, "bn_act_quant"),
    without("bn_statistics.cuh", f"/ count;{INNER_BARRIER}", INNER_BARRIER, "bn_act_quant"),
    without(
        "bn_statistics.cuh", f"squares[i];\n    }}{INNER_BARRIER}", INNER_BARRIER, "bn_act_quant"
    ),
    without("bn_statistics.cuh", f"own)}});{INNER_BARRIER}", INNER_BARRIER, "bn_act_quant"),
    without("bn_backward.cuh", f"(partials);{BARRIER}", BARRIER, "bn_act_quant_backward"),
    without("bn_backward.cuh", f"(others);{BARRIER}", BARRIER, "bn_act_quant_backward"),
    without("augment_pixels.cuh", f"body(i);{BARRIER}", BARRIER, "augment"),
    without("augment_pixels.cuh", f"high);\n  }}{BARRIER}", BARRIER, "augment"),
    without("augment_pixels.cuh", f"stats.sum, sum);{BARRIER}", BARRIER, "augment"),
    without("augment_pixels.cuh", f"ws.area);{BARRIER}\n  look_up", BARRIER, "augment"),
]
WARPS = [
    Mutation("reduce.cuh", "offset = 16;", "offset = 8;", "lsq"),
    Mutation("reduce.cuh", "offset = 16;", "offset = 32;", "ewgs"),
    Mutation("reduce.cuh", "first += 32)", "first += 64)", "lsq_many"),
    Mutation("kd_rows.cuh", "values[k] = warps[k][0];", "values[k] = warps[k][1];", "kd_loss"),
    Mutation("kd_rows.cuh", "values[k], offset));", "values[k], 1));", "kd_loss"),
    Mutation(
        "cmi_rows.cuh",
        "return ((1u << kLanes % 32) - 1) << (threadIdx.x % 32 / kLanes * kLanes);",
        "return 0xffffffffu;",
        "cmi_update",
    ),
    Mutation(
        "cmi_rows.cuh",
        "width = kLanes / 2; width > 0",
        "width = kLanes / 4; width > 0",
        "cmi_divergence",
    ),
    Mutation(
        "augment_pixels.cuh",
        "if (threadIdx.x % 32 != 0) continue;",
        "if (threadIdx.x % 32 != 0) return;",
        "augment",
    ),
    Mutation("augment_pixels.cuh", "step < 32;", "step < 16;", "augment"),
    Mutation("augment_pixels.cuh", "int step = 16;", "int step = 8;", "augment"),
]
BOUNDS = [
    Mutation("elementwise.cuh", "aligned({x, y}) ? map_kernel", "true ? map_kernel", "pact"),
    Mutation(
        "elementwise.cuh",
        "load_fragment<V>(x + at, numel - at)",
        "load_fragment<V>(x + at, kFragment)",
        "pact",
    ),
    Mutation(
        "elementwise.cuh", "if (left <= 0) return;\n    ChannelCursor", "ChannelCursor", "pact"
    ),
    Mutation("elementwise.cuh", "codes |= i < left ?", "codes |= true ?", "pact"),
    Mutation(
        "elementwise.cuh",
        "store_fragment<V>(y + at, fragment[k], left)",
        "store_fragment<V>(y + at, fragment[k], kFragment)",
        "dorefa",
    ),
    Mutation(
        "elementwise.cuh",
        "if (i < tile.count) body(pack[k], tile.at(i), tile.count - i);",
        "body(pack[k], tile.at(i), tile.count - i);",
        "lsq",
    ),
    Mutation("channel_forward.cuh", "if (left <= 0) continue;", "", "seq"),
    Mutation(
        "pack.cuh",
        "if (V == 1 || (aligned && left >= V)) return load_pack",
        "if (V == 1 || left >= V) return load_pack",
        "lsq_many",
    ),
    Mutation(
        "pack.cuh",
        "if (V == 1 || (aligned && left >= V)) return store_pack",
        "if (V == 1 || aligned) return store_pack",
        "ewgs",
    ),
    Mutation(
        "backward_kernels.cuh",
        "if (W * kBits > 8 && left * kBits > 8)",
        "if (W * kBits > 8)",
        "pact",
    ),
    Mutation(
        "backward_kernels.cuh",
        "i < left ? one.sums[s] : 0.0f",
        "one.sums[s]",
        "lsq",
        equivalent="what a cut pack lacks has a gradient of 0, which adds 0",
    ),
    Mutation(
        "backward_kernels.cuh",
        "i < kLanes * W && left_edge + i < plan.width",
        "i < kLanes * W",
        "lsq",
    ),
    Mutation(
        "backward_kernels.cuh",
        "column < plan.width ? start + kTileRows",
        "true ? start + kTileRows",
        "lsq",
    ),
    Mutation(
        "partition.cuh",
        "int(min(plan.runs, plan.outer - row * plan.runs)) * inner",
        "int(plan.runs) * inner",
        "lsq",
    ),
    Mutation(
        "partition.cuh", "int(min(plan.tile, plan.inner - offset))", "int(plan.tile)", "ewgs_many"
    ),
    Mutation(
        "augment.cu",
        "plan.share == nullptr ? 9 : 21) + 15)",
        "plan.share == nullptr ? 8 : 21) + 15)",
        "augment",
    ),
    Mutation("augment.cu", "if (image < 0 || image >= plan.images) __trap();", "", "augment"),
    Mutation(
        "augment.cu",
        "row += gridDim.x) {\n    const int64_t image",
        "row += 2 * gridDim.x) {\n    const int64_t image",
        "augment",
    ),
    Mutation(
        "augment_pixels.cuh",
        "0 <= y && y < ws.height && 0 <= x && x < ws.width",
        "y < ws.height && 0 <= x && x < ws.width",
        "augment",
    ),
    Mutation(
        "cmi_rows.cuh", "if (k < classes) values[j] = z[k];", "values[j] = z[k];", "cmi_divergence"
    ),
    Mutation(
        "cmi_update.cu",
        "own_label = own_label < 0 || own_label >= classes ? 0 : own_label;",
        "",
        "cmi_update",
    ),
    Mutation(
        "kd_rows.cuh",
        "if (class_of(j) >= classes) break;\n      const Pack",
        "const Pack",
        "kd_loss",
    ),
    Mutation("codes.cu", "if (kAligned && left >= kFragment) {", "if (kAligned) {", "codes"),
    Mutation(
        "codes.cu", "if (kAligned && left >= kFragment) {", "if (left >= kFragment) {", "codes"
    ),
    Mutation("codes.cu", "i < slot && i * 8 < left * slot", "i < slot", "codes"),
    Mutation("codes.cuh", "if (left < N) {", "if (false) {", "codes"),
    Mutation("codes.cuh", "found |= i < left ?", "found |= true ?", "codes"),
    Mutation("codes.cu", "aligned({from, to}) ?", "aligned({to}) ?", "codes"),
    Mutation("codes.cuh", "|| !is_dense) return", "|| true) return", "codes"),
]
INDICES = [
    Mutation("codes.cu", "codes + at / 8 * all.slot, found", "codes + at / 8, found", "codes"),
    Mutation(
        "codes.cu",
        "int64_t(blockIdx.x) * (kFragments * kBlockElements)",
        "int(blockIdx.x) * (kFragments * kBlockElements)",
        "codes",
        beyond="codes",
    ),
    Mutation(
        "elementwise.cuh",
        "int64_t(blockIdx.x) * (kFragments * kBlockElements)",
        "int(blockIdx.x) * (kFragments * kBlockElements)",
        "ewgs",
        beyond="ewgs_forward",
    ),
    Mutation(
        "partition.cuh",
        "int64_t(column % segments) * plan.tile",
        "int(column % segments) * int(plan.tile)",
        "lsq",
        beyond="lsq_backward",
    ),
    Mutation(
        "partition.cuh", "channel = column / segments;", "channel = column % segments;", "lsq"
    ),
    Mutation("partition.cuh", "run * run_stride + (i - run * inner)", "i", "lsq"),
    Mutation("partition.cuh", "(float(i) + 0.5f) * reciprocal", "float(i) * reciprocal", "lsq"),
    Mutation("elementwise.cuh", "within -= inner, ++channel;", "within -= inner;", "bn_act_quant"),
    Mutation("reduce.cuh", "copy = run % unsigned(copies),", "copy = 0,", "lsq"),
    Mutation(
        "many_kernels.cuh",
        "block = blockIdx.x - table.first[m];",
        "block = blockIdx.x;",
        "lsq_many",
    ),
    Mutation(
        "many_kernels.cuh",
        "one.sums[output / one.rows][output % one.rows]",
        "one.sums[output / one.rows][0]",
        "lsq_many",
    ),
    Mutation(
        "many_kernels.cuh",
        "while (table.first[m + 1] <= warp) ++m;",
        "while (table.first[m + 1] < warp) ++m;",
        "ewgs_many",
    ),
    Mutation(
        "cmi_update.cu",
        "(own_group * classes + label) * columns",
        "own_label * columns",
        "cmi_update",
    ),
    Mutation(
        "cmi_update.cu",
        "if (limbs.low != 0) atomicAdd(reinterpret_cast<Word*>(column + 1), Word(limbs.low));",
        "if (limbs.low != 0) column[1] += limbs.low;",
        "cmi_update",
    ),
    Mutation("cmi_divergence.cu", "dx[index * rows.classes + k]", "dx[k]", "cmi_divergence"),
    Mutation(
        "kd_kernels.cuh",
        "const int64_t row = blockIdx.x, offset = row * batch.classes;",
        "const int64_t row = blockIdx.x, offset = int(row) * int(batch.classes);",
        "kd_loss",
        beyond="kd_loss",
    ),
    Mutation("kd_kernels.cuh", "online.rebase(top[0], top[1], inverse);", "", "kd_loss"),
    Mutation(
        "kd_kernels.cuh",
        "first < batch.classes; first += kLongThreads * kLongFragment",
        "first < batch.classes - kLongThreads; first += kLongThreads * kLongFragment",
        "kd_loss",
    ),
    Mutation(
        "kd_kernels.cuh",
        "exp_t_T = exp_of(t[i] * inverse);",
        "exp_t_T = exp_of(z[i] * inverse - d);",
        "kd_loss",
    ),
    Mutation(
        "counter.cuh",
        "gridDim.x - 1) == gridDim.x - 1",
        "gridDim.x - 1) == gridDim.x - 2",
        "kd_loss",
    ),
    Mutation(
        "augment_pixels.cuh",
        "uint8_t* pixels = ws.pixels;\n  ws.pixels = ws.next;\n  ws.next = pixels;",
        "ws.pixels = ws.next;",
        "augment",
    ),
    Mutation(
        "augment.cu",
        "const uint8_t* from = within(plan.box + 4 * image, position, plan.width) ? other : own;",
        "const uint8_t* from = within(plan.box, position, plan.width) ? other : own;",
        "augment",
    ),
]
NORMS = [
    Mutation(
        "bn_statistics.cuh",
        "double(one.squares) + double(one.count) * shift * shift",
        "double(one.squares)",
        "bn_act_quant",
    ),
    Mutation(
        "bn_statistics.cuh",
        "float(shift * shift * (a * b / all))",
        "0",
        "bn_act_quant",
    ),
    Mutation(
        "bn_statistics.cuh",
        "(1 - share) * double(running) + share * value",
        "share * double(running) + (1 - share) * value",
        "bn_act_quant",
    ),
    Mutation(
        "bn_forward.cuh", "all.codes + at * slots.slot / 8", "all.codes + at / 8", "bn_act_quant"
    ),
    Mutation(
        "bn_act_quant.cu", "with_codes && has_whole_bytes<T>(slot)", "with_codes", "bn_act_quant"
    ),
    Mutation("bn_statistics.cuh", "count > 1 ? count - 1 : 1", "count", "bn_act_quant"),
    Mutation("bn_statistics.cuh", "(k + 1 == packs && i < last)", "k + 1 == packs", "bn_act_quant"),
    Mutation(
        "bn_channels.cuh", "channels > 1 && channels % W == 0", "channels > 1", "bn_act_quant"
    ),
    Mutation(
        "bn_backward.cuh",
        "sums[1] += one.dx * inputs[k].centred(i, norm);",
        "sums[1] += one.dx;",
        "bn_act_quant_backward",
    ),
    Mutation(
        "bn_backward.cuh",
        "others[s] += one.sums[s];",
        "others[s] = one.sums[s];",
        "bn_act_quant_backward",
    ),
    Mutation(
        "bn_backward.cuh",
        "NormGradient<float>(bias, centred, invstd, count)",
        "NormGradient<float>(bias, centred, 1, count)",
        "bn_act_quant_backward",
    ),
    Mutation("bn_backward.cuh", "training\n", "!training\n", "bn_act_quant_backward"),
]
LAST_BLOCK = [
    without("counter.cuh", f"{INNER_BARRIER}\n    if (gridDim.x == 1)", INNER_BARRIER, "lsq"),
    without("counter.cuh", "      __threadfence();\n", "      __threadfence();\n", "ewgs"),
    without("counter.cuh", "if (last) __threadfence();", "if (last) __threadfence();", "dorefa"),
    Mutation("counter.cuh", "atomicInc(counter, gridDim.x - 1)", "atomicAdd(counter, 1u)", "pact"),
    Mutation(
        "counter.cuh", "atomicInc(counter, gridDim.x - 1)", "atomicInc(counter, gridDim.x)", "lsq"
    ),
    without("fold.cuh", "\n      __syncthreads();", "\n      __syncthreads();", "ewgs"),
    Mutation("fold.cuh", "channel += kFoldWarps", "channel += 2 * kFoldWarps", "lsq"),
    Mutation("fold.cuh", "partials + s * terms + i", "partials + i", "ewgs"),
    without(
        "many_kernels.cuh",
        "    if (blocks <= rows) continue;\n",
        "    if (blocks <= rows) continue;\n",
        "lsq_many",
    ),
    Mutation("many_kernels.cuh", "next += kFoldWarps", "next += 2 * kFoldWarps", "lsq_many"),
    Mutation("many_kernels.cuh", "first += Op::kSums * rows;", "first += rows;", "ewgs_many"),
    without("many_kernels.cuh", "folds && counter.is_last()", " && counter.is_last()", "lsq_many"),
]
MUTATIONS = [*SYNCHRONIZATION, *WARPS, *BOUNDS, *INDICES, *NORMS, *LAST_BLOCK]
