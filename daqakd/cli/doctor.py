"""``doctor``: versions, devices, and why each backend can or cannot run."""

from dataclasses import dataclass

import torch

from .. import _console
from .._ops import INPUT_DTYPES, STEMS
from .._packing import build_facts
from ..backends import can_run
from ..train.environment import environment


@dataclass(frozen=True, kw_only=True)
class Options:
    """``doctor`` has no options."""


def run(options: Options) -> None:
    """Print versions, devices, and every backend's reasons."""
    facts = environment()
    for name, version in facts["packages"].items():
        _console.say(f"{name:14}{version or 'not installed'}")
    _console.say(f"{'processor':14}{facts['processor']}, {facts['cores']} cores")
    _console.say(f"{'GPU':14}{facts['gpu'] or 'none that torch sees'}")
    print_build()
    for device in ("cpu", "cuda") if facts["gpu"] else ("cpu",):
        _console.say(f"\nops on {device} (float32, or the dtype named):")
        for stem in sorted(STEMS):
            (dtype, *_) = INPUT_DTYPES.get(stem, (torch.float32,))
            name = stem if dtype == torch.float32 else f"{stem} ({str(dtype)[6:]})"
            reasons = {b: can_run(stem, b, device, dtype) for b in ("native", "triton")}
            runs = [b for b, why in reasons.items() if why is None]
            _console.say(f"  {name:20}{', '.join([*runs, 'reference'])}")
            for backend, why in reasons.items():
                if why is not None:
                    _console.say(f"  {'':20}not {backend}: {why}")


def print_build() -> None:
    """Print what the compiled libraries know about themselves."""
    facts = build_facts()
    if not facts:
        return
    _console.say(f"{'compiler':14}{facts['compiler']}")
    if facts["cuda"]:
        kernels = facts["kernels"]
        most = max(kernel["registers"] for kernel in kernels)
        spilled = sum(kernel["spilled_bytes"] > 0 for kernel in kernels)
        _console.say(
            f"{'CUDA kernels':14}CUDA {facts['cuda']}, architectures {facts['architectures']}:"
            f" {len(kernels)} built, at most {most} registers, {spilled} spill"
        )
