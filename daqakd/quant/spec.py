"""``LayerSpec``: the options of ``quantize`` that say how a layer is quantized."""

from collections.abc import Callable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from torch import Tensor

from .._errors import InputError, seen, unknown
from ..backends.contract import LARGEST_NUMBER
from ..functional import _checks

# method: that of the weights, that of the activations
METHODS = {
    "lsq": ("lsq", "lsq"),
    "lsqplus": ("lsq", "lsqplus"),
    "pact": ("dorefa", "pact"),
    "dorefa": ("dorefa", "dorefa"),
    "ewgs": ("ewgs", "ewgs"),
    "seq": ("seq", "lsq"),
}
FirstLast = Literal["8bit", "fp", "same"]
Rescale = Literal["auto", "off"]
Save = Literal["values", "codes"]
Flavour = Literal["paper", "mqbench"]
Delta = float | Literal["hessian"]
Width = int | None | Literal["bits"]
WIDTHS = ("weight_bits", "act_bits", "embedding_bits")
DEFAULT_BITS = 4  # of quantize(model)
FULL_BITS = 32  # of full precision, where a width is a number
CHOICES: dict[str, tuple[str | None, ...]] = {
    "method": tuple(METHODS),
    "weight_method": (None, "dorefa", "ewgs", "lsq", "seq"),
    "act_method": (None, "dorefa", "ewgs", "lsq", "lsqplus", "pact"),
    "first_last": ("8bit", "fp", "same"),
    "rescale": ("auto", "off"),
    "save": ("values", "codes"),
    "flavour": ("paper", "mqbench"),
}


def _is_number(value: Any) -> bool:
    """Return whether it is a number that float32 holds, or a tensor of one, which may change."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and not value.is_complex() and bool(value.isfinite())
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and abs(value) <= LARGEST_NUMBER


EXPECTED: dict[str, tuple[Callable[[Any], bool], str]] = {
    "per_channel": (lambda value: isinstance(value, bool), "True or False"),
    "pact_alpha": (
        lambda value: value is None or (_is_number(value) and value > 0),
        "a number above 0, or None for the percentile of the calibration data",
    ),
    "delta": (
        lambda value: value == "hessian" if isinstance(value, str) else _is_number(value),
        "a finite number, or 'hessian'",
    ),
}


@dataclass(frozen=True, kw_only=True)
class LayerSpec:
    """How the layers of a model are quantized; 2-bit LSQ by default.

    Raises nothing when built; :meth:`check` finds what cannot be meant.
    """

    weight_bits: int | None = 2
    """Bits of the weights, 1 to 8 (LSQ: 2 to 8); 32 or None leaves them in full precision."""
    weight_levels: int | None = None
    """Levels of SEQ's weights of weight_bits, at most 2^weight_bits; None for that many. 3 makes
    ternary weights, which 2 bits hold. Weights of another width have all levels of theirs."""
    act_bits: int | None = 2
    """Bits of the activations, 1 to 8; 32 or None leaves them in full precision."""
    embedding_bits: int | None = None
    """Bits of the weights of nn.Embedding, 1 to 8; 32 or None leaves them in full precision."""
    method: str = "lsq"
    """Quantizer: lsq, lsqplus (LSQ's weights; activations with a learned offset, for those that dip
    below 0, as SiLU's and GELU's), pact (with DoReFa weights), dorefa, ewgs or seq (weights of
    levels balanced around 0, for 1 and 2 bits; LSQ's activations)."""
    weight_method: str | None = None
    """Quantizer of the weights, lsq, dorefa, ewgs or seq; None for the method's."""
    act_method: str | None = None
    """Quantizer of the activations, lsq, lsqplus, pact, dorefa or ewgs; None for the method's."""
    per_channel: bool = False
    """One step of LSQ or SEQ per output channel of the weights; groups of a transposed convolution
    share."""
    first_last: FirstLast = "8bit"
    """First and last layer, in order of registration: 8 bits, full precision, or as the rest."""
    rescale: Rescale = "auto"
    """auto gives DoReFa weights their largest magnitude back where no BatchNorm of the same width
    is registered next; off never does, nor does MQBench's flavour."""
    pact_alpha: float | None = None
    """PACT's starting alpha; None takes the 99.9th percentile at calibration, or MQBench's 6."""
    delta: Delta = 0.0
    """EWGS's gradient scaling factor; with hessian each quantizer has its own, which starts at 0
    and follows the trace of the loss's Hessian."""
    save: Save = "values"
    """What layers keep of their quantized inputs for backward: the values, or their codes, which
    take an eighth of the memory at 4 bits and give the same gradients."""
    flavour: Flavour = "paper"
    """Formulas of lsq, pact and dorefa: the papers', or those of MQBench, by which Tiny ImageNet's
    published results were trained: signed grids everywhere, PACT's alpha fixed at 6, quantizer
    parameters with the weights' learning rate and decay. MQBench's dorefa normalises activations by
    the batch's maximum, in evaluation too."""

    def __post_init__(self) -> None:
        for name in WIDTHS:
            bits = getattr(self, name)
            if isinstance(bits, int) and bits == FULL_BITS:
                object.__setattr__(self, name, None)
        for name, known in CHOICES.items():
            value = getattr(self, name)
            if isinstance(value, str) and value.lower() in known:
                object.__setattr__(self, name, value.lower())

    @property
    def weights_by(self) -> str:
        """The quantizer of the weights."""
        return METHODS[self.method][0] if self.weight_method is None else self.weight_method

    @property
    def activations_by(self) -> str:
        """The quantizer of the activations."""
        return METHODS[self.method][1] if self.act_method is None else self.act_method

    @property
    def short(self) -> str:
        """The widths and the quantizers: W2A4 lsq, W2A4 dorefa, lsq or W2A4 seq, 3 levels."""
        weights, activations = (bits or FULL_BITS for bits in (self.weight_bits, self.act_bits))
        names = self.weights_by, self.activations_by
        paired = self.weight_method is None and self.act_method is None
        method = self.method if paired else ", ".join(dict.fromkeys(names))
        levels = "" if self.weight_levels is None else f", {self.weight_levels} levels"
        return f"W{weights}A{activations} {method}{levels}"

    def check(self, where: str = "") -> None:
        """Raise InputError for values that cannot be meant; ``where`` says whose they are."""
        suffix = f" ({where})" if where else ""
        for name, known in CHOICES.items():
            _check_choice(f"{name}{suffix}", getattr(self, name), known)
        for name in WIDTHS:
            _check_bits(f"{name}{suffix}", getattr(self, name))
        for name, (fits, wanted) in EXPECTED.items():
            if not fits(value := getattr(self, name)):
                raise InputError(f"{name}{suffix}: expected {wanted}, got {seen(value)}")
        methods = self.weights_by, self.activations_by
        if isinstance(self.delta, str) and not where and "ewgs" not in methods:
            raise InputError(
                f"delta: 'hessian' is for EWGS, and {self.weights_by} weights with"
                f" {self.activations_by} activations have no delta; use method='ewgs', or leave"
                " delta out"
            )
        ones = [name for name in ("weight_bits", "embedding_bits") if getattr(self, name) == 1]
        if self.weights_by == "lsq" and ones:
            raise InputError(
                f"{ones[0]}{suffix}: 1 bit has no positive code for LSQ's signed weights;"
                " use 2 bits or more, or weight_method='seq', 'dorefa' or 'ewgs'"
            )
        self._check_levels(suffix)
        if self.flavour == "mqbench":
            self._check_mqbench(suffix)

    def _check_levels(self, suffix: str) -> None:
        """Raise InputError for a number of levels that the weights cannot have."""
        if self.weight_levels is None:
            return
        if self.weights_by != "seq" or self.weight_bits is None:
            have = "in full precision" if self.weight_bits is None else f"by {self.weights_by}"
            raise InputError(
                f"weight_levels{suffix}: is for SEQ, and the weights are {have}; use"
                " weight_method='seq', or leave weight_levels out"
            )
        highest, why = 2**self.weight_bits, f" for weight_bits={self.weight_bits}"
        _checks.level_count(f"weight_levels{suffix}", self.weight_levels, highest, why)

    def _check_mqbench(self, suffix: str) -> None:
        """Raise InputError for what MQBench's quantizers cannot do."""
        for name, method in (("weights", self.weights_by), ("activations", self.activations_by)):
            if method in ("ewgs", "lsqplus", "seq"):
                raise InputError(
                    f"flavour{suffix}: 'mqbench' has no {method}, which would quantize the {name};"
                    " use lsq, pact or dorefa, or flavour='paper'"
                )
        for name in WIDTHS:
            if getattr(self, name) == 1:
                raise InputError(
                    f"{name}{suffix}: 1 bit has no positive code on the signed grid of"
                    " flavour='mqbench'; use 2 bits or more, or flavour='paper'"
                )
        if self.per_channel:
            raise InputError(
                f"per_channel{suffix}: flavour='mqbench' has one step for a whole weight; leave"
                " per_channel out, or use flavour='paper'"
            )
        if self.save == "codes":
            raise InputError(
                f"save{suffix}: 'codes' are not known of flavour='mqbench', which keeps values; use"
                " save='values', or flavour='paper'"
            )


def widths_of(bits: int | None, weight_bits: Width, act_bits: Width) -> list[int | None]:
    """Return the bits of weights and activations; a width that is ``"bits"`` was not given.

    Raises:
        InputError: one of the two was given alone: a default for the other would be a guess.
    """
    given = {"weight_bits": weight_bits, "act_bits": act_bits}
    missing = [name for name, width in given.items() if width == "bits"]
    if len(missing) == 1 and bits is None:
        (other,) = given.keys() - missing
        raise InputError(
            f"{missing[0]}: has no value beside {other}={given[other]}; pass {missing[0]}= (None"
            " for full precision), or bits= for both"
        )
    both = DEFAULT_BITS if bits is None else bits
    return [both if width == "bits" else width for width in given.values()]


def _check_choice(name: str, value: Any, known: tuple[str | None, ...]) -> None:
    if value in known:
        return
    names = [choice for choice in known if choice is not None]
    if not isinstance(value, str):
        raise InputError(f"{name}: expected one of {', '.join(names)}, got {seen(value)}")
    raise unknown(name, value, names)


def _check_bits(name: str, bits: Any) -> None:
    if bits is not None:
        _checks.bit_width(bits, name=name)
