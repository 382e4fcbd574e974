"""What ``summary`` says of a fused student: what runs in one op, and what does not and why."""

from dataclasses import dataclass, field

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from .chain import Chain
from .plan import Fusion, fusion_of
from .rewriting import Part


@dataclass(frozen=True)
class FusionSummary:
    """What became of a student's BatchNorms, quantized layers and ReLUs, by their names."""

    fused: dict[str, str] = field(default_factory=dict)
    """BatchNorm: what runs with it in one op."""
    implied: dict[str, str] = field(default_factory=dict)
    """ReLU: the quantizers after it, whose clipping makes it needless."""
    whole: dict[str, str] = field(default_factory=dict)
    """BatchNorm, quantized layer or part of the model: why it runs by itself."""
    norms: int = 0
    """BatchNorms in the model."""

    def lines(self) -> list[str]:
        """Return the section of the table's text."""
        return [
            f"fused: {len(self.fused)} of {self.norms} BatchNorms with what follows",
            *(f"{name}: fused with {what}" for name, what in self.fused.items()),
            *(f"{name}: left to {what}" for name, what in self.implied.items()),
            *(f"{name or 'the model'}: not fused: {why}" for name, why in self.whole.items()),
        ]


def _name(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix and name else prefix or name


def _key(part: Part) -> str:
    if isinstance(part, Chain):
        return part.head.name
    return part.activation.module or f"relu before {part.layers[0]}"


def _obstacle(root: nn.Module, part: Part) -> str | None:
    try:
        return part.obstacle_in(root)
    except AttributeError:
        return "a member is gone"


def _add(found: FusionSummary, prefix: str, root: nn.Module, fusion: Fusion) -> None:
    """Add what became of one root."""
    found.whole.update({_name(prefix, name): why for name, why in fusion.notes.items()})
    modules = fusion.modules(root) if fusion.modes is not None else []
    if isinstance(modules, str):
        found.whole[prefix] = modules
        return
    for part in fusion.parts:
        name, obstacle = _name(prefix, _key(part)), _obstacle(root, part)
        if obstacle is not None:
            found.whole[name] = obstacle
            continue
        table = found.fused if isinstance(part, Chain) else found.implied
        table[name] = part.describe(root)


def fusion_summary(student: nn.Module) -> FusionSummary | None:
    """Return what is fused in a student as it is now; None where nobody called ``fuse``."""
    roots = [(name, m, fusion_of(m)) for name, m in student.named_modules()]
    if all(fusion is None for _, _, fusion in roots):
        return None
    found = FusionSummary(norms=sum(isinstance(m, _BatchNorm) for _, m, _ in roots))
    for name, module, fusion in roots:
        if fusion is not None:
            _add(found, name, module, fusion)
    return found
