"""Training options, and the run directory's ``config.toml``."""

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .._errors import InputError
from .._files import write_text
from ..augment import ResizedCrop, check_pipeline


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Options of one training run.

    Defaults follow DAQAKD's CIFAR students: Adam, cosine to 0, ``CE + 2 * T^2 * KL``, T = 4.
    """

    epochs: int = 30
    """Passes over the training images."""
    batch_size: int = 128
    """Images per step; an incomplete last batch is dropped."""
    optimizer: Literal["adam", "sgd"] = "adam"
    """Adam, or SGD with Nesterov momentum 0.9."""
    lr: float = 1e-3
    """Peak learning rate of the model's parameters."""
    quantizer_lr: float | None = None
    """Peak learning rate of steps, ranges and alphas; a tenth of --lr by default."""
    weight_decay: float = 1e-4
    """Of the model's parameters and PACT's alpha; steps and ranges never decay."""
    warmup_steps: int = 0
    """Steps of linear warm-up before the cosine."""
    temperature: float = 4.0
    """T of the distillation term."""
    ce_weight: float = 1.0
    """Weight of the cross-entropy."""
    kd_weight: float = 2.0
    """Weight of T^2 * KL."""
    label_smoothing: float = 0.0
    """Label mass spread over all classes."""
    pipeline: ResizedCrop | None = None
    """What happens before the strategy; None for a padded random crop."""
    semantics: Literal["pil", "torchvision"] = "pil"
    """Whose pixels the image operations equal: Pillow's, or torchvision's on tensors."""
    calibration_batches: int = 4
    """Training batches that start the activation quantizers."""
    seed: int = 0
    """Of the initial weights, the order and every draw."""
    workers: int | None = None
    """Processes that augment; chosen from the size of the set by default."""
    checkpoint_seconds: float = 60.0
    """Seconds between checkpoints within an epoch."""

    def check(self) -> None:
        """Raise InputError for values that cannot be meant."""
        for name in ("epochs", "batch_size", "calibration_batches"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected at least 1, got {getattr(self, name)}")
        for name in ("lr", "temperature"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name}: expected more than 0, got {getattr(self, name)}")
        check_pipeline(self.pipeline, self.semantics)


def to_toml(values: dict[str, Any]) -> str:
    """Return TOML text of a flat dictionary with one level of sections; None is left out."""
    lines, sections = [], []
    for key, value in values.items():
        if isinstance(value, dict):
            sections.append(f"\n[{key}]\n{to_toml(value)}")
        elif value is not None:
            plain = list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(plain)}\n")
    return "".join(lines + sections)


def settle(
    path: Path, verb: str, values: dict[str, Any], defaults: dict[str, Any] | None = None
) -> None:
    """Note a verb's options in ``config.toml``, or require what is noted there to be the same.

    A run that was begun before an option existed had that option's value in ``defaults``.

    Raises:
        InputError: the run directory belongs to another configuration.
    """
    noted = read(path) if path.exists() else {}
    new = tomllib.loads(to_toml(values))
    if verb not in noted:
        write_text(path, to_toml({**noted, verb: new}))
        return
    old = {**tomllib.loads(to_toml(defaults or {})), **noted[verb]}
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k)]
    if changed:
        what = ", ".join(f"{k} ({old.get(k)} there, {new.get(k)} here)" for k in changed[:5])
        raise InputError(
            f"{path.parent}: holds a {verb} run of another configuration: {what}. Use another"
            " --out, or the same options to continue that run"
        )


def read(path: Path) -> dict[str, Any]:
    """Read a ``config.toml``."""
    try:
        return tomllib.loads(path.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); is this a run directory?") from error
