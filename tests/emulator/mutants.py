"""Plant one fault after another in the CUDA sources; a test must fail for each: ``make mutants``.

Numbers select mutations: ``python -m tests.emulator.mutants 3 17``.
"""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from . import build
from .backend import LIBRARY
from .mutations import MUTATIONS, Mutation

OWN = "tests/emulator/test_kernels.py"
LAUNCHES = "tests/emulator/test_launches.py"
LAWS = "tests/ops/test_quantizer_laws.py"
# which files test the object of a stem, and by which word; the first to fail ends the run
TESTS = {
    "lsq": ("lsq and not many and not lsqplus", LAUNCHES, OWN, "tests/ops/test_lsq.py", LAWS),
    "pact": ("pact", LAUNCHES, OWN, "tests/ops/test_pact.py", LAWS),
    "dorefa": ("dorefa and not many", LAUNCHES, OWN, "tests/ops/test_dorefa.py", LAWS),
    "ewgs": ("ewgs and not many", LAUNCHES, OWN, "tests/ops/test_ewgs.py", LAWS),
    "lsqplus": ("lsqplus", LAUNCHES, OWN, "tests/ops/test_lsqplus.py", LAWS),
    "seq": ("seq", LAUNCHES, OWN, "tests/ops/test_seq.py", LAWS),
    "lsq_many": ("many", LAUNCHES, OWN, "tests/ops/test_many.py"),
    "dorefa_weight_many": ("many", LAUNCHES, OWN, "tests/ops/test_many.py"),
    "ewgs_many": ("many", LAUNCHES, OWN, "tests/ops/test_many.py"),
    "codes": ("codes", OWN, "tests/ops/test_codes.py"),
    "cmi_update": ("cmi", OWN, "tests/ops/test_cmi_state.py", "tests/ops/test_cmi_exact.py"),
    "cmi_divergence": ("cmi", OWN, "tests/ops/test_cmi.py"),
    "kd_loss": (
        "kd_loss",
        OWN,
        *(f"tests/ops/test_kd_loss{end}.py" for end in ("", "_edges", "_hot")),
    ),
    "bn_act_quant": ("bn_act_quant", OWN, "tests/ops/test_bn_act_quant.py"),
    "bn_act_quant_backward": ("bn_act_quant", OWN, "tests/ops/test_bn_act_quant.py"),
    "augment": (
        "augment or images or stop",
        OWN,
        "tests/ops/test_augment_backends.py",
        "tests/ops/test_augment_backends_refusals.py",
    ),
}
RANGE = "tests/emulator/test_range.py"  # what only more than 2^31 elements show
REPORTS = (r"^E +(\d+ x .*)$", r"^E +(.*Error.*|assert .*)$")  # the emulator's, or a test's


@dataclass
class Outcome:
    """Whether tests saw a fault, and the first line they said of it."""

    caught: bool
    said: str


def plant(mutation: Mutation, folder: Path) -> Path:
    """Return a copy of the sources with the fault in it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(build.ROOT / "csrc", folder / "csrc")
    path = folder / "csrc" / "cuda" / mutation.file
    text = path.read_text()
    if mutation.old not in text:
        raise SystemExit(f"{mutation.file} has no {mutation.old!r} any more")
    path.write_text(text.replace(mutation.old, mutation.new, 1))
    return folder / "csrc"


def compile_mutant(mutation: Mutation, folder: Path) -> Path:
    """Compile one object and link it before the other kernels, whose inline functions it replaces.

    The runtime comes first: its own strings stay without checks.
    """
    csrc = plant(mutation, folder)
    source, flags = build.jobs(csrc)[mutation.stem]
    own, library = folder / f"{mutation.stem}.o", folder / build.LIBRARY
    subprocess.run(f"g++ {flags} -c {source} -o {own}", shell=True, check=True)
    runtime = [f"{path.stem}.o" for path in sorted(build.RUNTIME.glob("*.cpp"))]
    others = sorted({path.name for path in build.OUT.glob("*.o")} - {own.name, *runtime})
    options = [f"-L{build.torch_folder()}/lib", "-ltorch_cpu", "-o", str(library)]
    command = ["g++", "-shared", *runtime, str(own), *others, *options]
    subprocess.run(command, check=True, cwd=build.OUT)
    return library


def run_tests(library: Path, word: str, file: str, marked: str) -> Outcome:
    """Run the tests of a file until one fails."""
    options = ["-q", "-x", "-p", "no:cacheprovider", "-k", f"({word}) and (emulat or stop)"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-m", marked, file],
        env=os.environ | {LIBRARY: str(library), "OMP_NUM_THREADS": "1"},
        cwd=build.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 5:
        raise SystemExit(f"no test is selected by {word!r} in {file}")
    found = [one for pattern in REPORTS for one in re.findall(pattern, done.stdout, re.M)]
    killed = f"killed by signal {-done.returncode}" if done.returncode < 0 else ""
    return Outcome(done.returncode != 0, found[0].strip() if found else killed)


def examine(mutation: Mutation) -> Outcome:
    """Return what the ordinary tests say of a fault, or else those of large tensors."""
    library = compile_mutant(mutation, build.OUT / f"mutant-{os.getpid()}")
    word, *files = TESTS[mutation.stem]
    tries = [(word, file, "not slow and not gpu") for file in files]
    tries += [(mutation.beyond, RANGE, "slow")] if mutation.beyond else []
    for one in tries:
        outcome = run_tests(library, *one)
        if outcome.caught:
            break
    return outcome


def main() -> int:
    """Examine the mutations; return how many no test saw without a reason."""
    build.build()
    chosen = [int(word) for word in sys.argv[1:]] or range(len(MUTATIONS))
    survived = 0
    for number in chosen:
        mutation = MUTATIONS[number]
        outcome = examine(mutation)
        survived += not outcome.caught and not mutation.equivalent
        verdict = "caught" if outcome.caught else mutation.equivalent or "SURVIVED"
        shown = " ".join(mutation.new.split())[-60:]
        print(
            f"{number} {mutation.file} {mutation.stem} {shown!r}: {verdict}: {outcome.said[:150]}",
            flush=True,
        )
    print(f"{len(chosen)} mutations, {survived} survived")
    return int(survived > 0)


if __name__ == "__main__":
    sys.exit(main())
