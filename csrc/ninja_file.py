"""Write build.ninja for one library: which sources, which flags, which libraries."""

import json
import os
import re
import shlex
import subprocess
import sysconfig

RULES = """
rule cxx
  command = {cxx} $flags -MMD -MF $out.d -c $in -o $out
  depfile = $out.d
  deps = gcc
rule nvcc
  command = {nvcc} $flags -MD -MF $out.d -c $in -o $out > $out.log 2>&1 || (cat $out.log; false)
  depfile = $out.d
  deps = gcc
rule link
  command = {cxx} -shared $in $flags -o $out
"""
# first, so that the others fit beside them
LONGEST = ("bn_act_quant", "bn_act_quant_backward", "kd_loss")
SANITIZERS = "-fsanitize=address,undefined,float-cast-overflow"
SANITIZERS += " -fno-sanitize=vptr -fno-sanitize-recover=all"
ENTRY = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes spill stores,"
    r" (\d+) bytes spill loads.*?Used (\d+) registers([^\n]*)",
    re.S,
)


def kernel_facts(logs):
    """Return one line per kernel and architecture: name, sm, registers, shared, spilled bytes."""
    lines = []
    for log in logs:
        for name, arch, stores, loads, registers, rest in ENTRY.findall(log.read_text()):
            shared = re.search(r"(\d+) bytes smem", rest)
            spills = int(stores) + int(loads)
            lines.append(f"{name} {arch} {registers} {shared[1] if shared else 0} {spills}")
    return sorted(set(lines))


def write_facts(work, build):
    """Write facts.h, what `daqakd doctor` says about the build, unless it says so already."""
    facts = {
        "compiler": build["cxx"],
        "cuda_version": build["cuda"] if "nvcc" in build else "",
        "architectures": build["arch_list"] if "nvcc" in build else "",
    }
    rows = kernel_facts(sorted((work.parent / "daqakd._C_cuda").glob("*.log")))
    text = "".join(f'#define DAQAKD_{key.upper()} R"({value})"\n' for key, value in facts.items())
    chunks = "\n".join(f'  R"({row}\n)"' for row in rows) or '  ""'
    text = f"#pragma once\n{text}static const char kKernels[] =\n{chunks};\n"
    header = work / "facts.h"
    if not header.exists() or header.read_text() != text:
        header.write_text(text)


def gencode(arch_list):
    """Turn "8.0;9.0+PTX" into nvcc's options."""
    options = []
    for arch in filter(None, re.split(r"[;, ]+", arch_list)):
        number = arch.removesuffix("+PTX").replace(".", "")
        options.append(f"-gencode=arch=compute_{number},code=sm_{number}")
        if arch.endswith("+PTX"):
            options.append(f"-gencode=arch=compute_{number},code=compute_{number}")
    return " ".join(options)


def host_module(csrc, work, build):
    """Return (sources, compile flags, link flags) of the pybind11 module."""
    import pybind11

    write_facts(work, build)
    includes = (pybind11.get_include(), sysconfig.get_path("include"))
    flags = " ".join(f"-isystem {shlex.quote(str(path))}" for path in includes)
    flags += f" -I{shlex.quote(str(work))}"  # ninja watches no system headers
    return sorted(csrc.glob("host/*.cpp")), f"-std=c++20 -O3 {build['host_flags']} {flags}", ""


def cuda_flags(build):
    """Return (nvcc's flags, link flags): torch's wheels carry what a small toolkit lacks."""
    nvidia, root = build["torch"].parent / "nvidia", build["toolkit"]
    headers = " ".join(f"-isystem {path}" for path in sorted(nvidia.glob("*/include")))
    name = f"libcudart.so.{build['cuda'].split('.')[0]}"
    folders = [root / "lib64", *sorted(root.glob("targets/*/lib")), *sorted(nvidia.glob("*/lib"))]
    cudart = next((path / name for path in folders if (path / name).exists()), None)
    if cudart is None:
        raise SystemExit(f"daqakd: {name} was found neither in {root} nor beside torch")
    ccbin = f"-ccbin {build['cxx']}" if "CXX" in os.environ else ""
    flags = f"--fmad=false -Xptxas -v {ccbin} {gencode(build['arch_list'])} {headers}"
    return flags, f"-ltorch_cuda {cudart}"


def write(name, out, work, csrc, build):
    """Write ``work/build.ninja``, which makes ``out``, the library ``name``."""
    torch = build["torch"]
    device = "-DDAQAKD_DEVICE=cpu -DDAQAKD_KEY=CPU"
    if name == "_C_cuda":
        device = "-DDAQAKD_DEVICE=cuda -DDAQAKD_KEY=CUDA -DUSE_CUDA"
    common = f"{build['flags']} {device} -isystem {torch}/include"
    host, nvcc, link = f"{common} {build['host_flags']}", "", f"-L{torch}/lib -ltorch_cpu "
    if build["sanitize"]:
        host, link = f"{host} -O1 -g {SANITIZERS}", f"{link} {SANITIZERS}"
    sources = [csrc / "registration.cpp", *sorted(csrc.glob("cpu/*.cpp"))]
    if name == "_C_cuda":
        sources = [csrc / "registration.cpp", *sorted(csrc.glob("cuda/*.cu"))]
        more, libraries = cuda_flags(build)
        nvcc = f"{common} {more} -Xcompiler {','.join(build['host_flags'].split())}"
        link = f"{link} {libraries}"
    elif name == "_host":
        sources, host, link = host_module(csrc, work, build)
    lines, objects = [RULES.format(cxx=build["cxx"], nvcc=build.get("nvcc", "false"))], []
    for source in sorted(sources, key=lambda path: path.stem not in LONGEST):
        cuda = source.suffix == ".cu"
        objects.append(f"{source.stem}.o")
        lines.append(f"build {objects[-1]}: {'nvcc' if cuda else 'cxx'} {source}")
        lines.append(f"  flags = {nvcc if cuda else host}")
    lines += [f"build {out}: link {' '.join(objects)}", f"  flags = {link}", ""]
    (work / "build.ninja").write_text("\n".join(lines))


def write_compile_commands(folder, path):
    """Write the commands of all libraries built in ``folder`` to ``path``, which clangd reads."""
    entries = []
    for file in sorted(folder.glob("*/build.ninja")):
        said = subprocess.check_output(["ninja", "-C", file.parent, "-t", "compdb", "cxx", "nvcc"])
        entries += json.loads(said[said.index(b"[") :])
    for entry in entries:
        entry["command"] = entry["command"].partition(" > ")[0]  # the log of nvcc
    path.write_text(json.dumps(entries, indent=1) + "\n")
