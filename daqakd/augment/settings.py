"""Operations by name and magnitude, as rows of :class:`Settings`, computed in float64 on the host.

``"pil"`` computes what Pillow does to a PIL image (the published tables), ``"torchvision"`` what
``torchvision.transforms.functional`` does to a uint8 tensor.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .._errors import InputError, unknown
from ..functional._checks import Semantics
from ..functional.augment import AUGMENT_KINDS, Settings

FIXED_POINT = 65536  # Pillow's affine maps count in 2^-16 pixels
Matrix = tuple[float, float, float, float, float, float]  # x' = a x + b y + c, y' = d x + e y + f


@dataclass(frozen=True)
class Setting:
    """One operation with its magnitude and sign: a row of :class:`Settings`, described there."""

    kind: str = "identity"
    lut: Tensor | None = None  # uint8 [256]
    integer: tuple[int, ...] = (0,) * 6
    real: tuple[float, ...] = (0.0,) * 6  # rounded to float32 by `stack_settings`


@dataclass(frozen=True)
class ImageContext:
    """What a setting depends on besides its operation and magnitude.

    Attributes:
        height: of the images in pixels.
        width: of the images in pixels.
        semantics: whose pixels to reproduce.
        bilinear: whether geometric operations interpolate, else take the nearest pixel; only for
            ``"torchvision"``.
    """

    height: int
    width: int
    semantics: Semantics = "pil"
    bilinear: bool = False

    @property
    def pil(self) -> bool:
        """Whether Pillow's arithmetic is wanted."""
        return self.semantics == "pil"


def stack_settings(settings: Sequence[Setting]) -> Settings:
    """Stack settings as rows 1, 2, ...; row 0 is the identity.

    Raises:
        InputError: more settings than a plan's int16 can number.
    """
    rows = [Setting(), *settings]
    if len(rows) > torch.iinfo(torch.int16).max:
        raise InputError(f"settings: at most 32766 fit into a plan's int16, got {len(settings)}")
    none = torch.zeros(256, dtype=torch.uint8)
    return Settings(
        torch.tensor([AUGMENT_KINDS[row.kind] for row in rows], dtype=torch.int8),
        torch.stack([none if row.lut is None else row.lut for row in rows]),
        torch.tensor([row.integer for row in rows], dtype=torch.int32),
        torch.tensor([row.real for row in rows], dtype=torch.float32),
    )


def _inverse_shear(across: float, down: float, x: float, y: float) -> Matrix:
    """Return the output-to-input map of a shear about (x, y) by torchvision's order of operations.

    Its angles are degrees of arctan(magnitude); the shear's determinant is 1.
    """
    sx = math.radians(math.degrees(math.atan(across)))
    sy = math.radians(math.degrees(math.atan(down)))
    a = math.cos(-sy) / math.cos(sy)
    b = -math.cos(-sy) * math.tan(sx) / math.cos(sy)
    c = math.sin(-sy) / math.cos(sy)
    d = -math.sin(-sy) * math.tan(sx) / math.cos(sy) + 1.0
    return d, -b, d * -x + -b * -y + x, -c, a, -c * -x + a * -y + y


def _inverse_rotation(degrees: float) -> Matrix:
    """Return torchvision's output-to-input map of a counterclockwise rotation about the origin."""
    angle = math.radians(-degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    return cos, sin, 0.0, -sin, cos, 0.0


def _fixed_point(matrix: Matrix) -> Setting:
    """Return Pillow's fixed-point form of a map on pixel corners."""
    a, b, c, d, e, f = matrix
    shifted = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return Setting("fixed", integer=tuple(math.floor(v * FIXED_POINT + 0.5) for v in shifted))


def _affine_grid(matrix: Matrix, context: ImageContext) -> Setting:
    """Return torchvision's float32 form of a map about the centre, in units of half the sides."""
    half = torch.tensor([[context.width * 0.5], [context.height * 0.5]])
    theta = torch.tensor(matrix).view(2, 3) / half
    return Setting(
        "bilinear" if context.bilinear else "nearest", real=tuple(theta.flatten().tolist())
    )


def _affine(matrix: Matrix, context: ImageContext) -> Setting:
    return _fixed_point(matrix) if context.pil else _affine_grid(matrix, context)


def _shear(across: float, down: float, context: ImageContext) -> Setting:
    """Shear about the top-left corner."""
    corner = (0.0, 0.0) if context.pil else (-context.width * 0.5, -context.height * 0.5)
    return _affine(_inverse_shear(across, down, *corner), context)


def _translate(right: int, down: int, context: ImageContext) -> Setting:
    return _affine((1.0, 0.0, -float(right), 0.0, 1.0, -float(down)), context)


def _rotate(degrees: float, context: ImageContext) -> Setting:
    """Rotate counterclockwise about the centre.

    Pillow rounds sines to 15 digits, which makes right angles exact.
    """
    if not context.pil:
        return _affine_grid(_inverse_rotation(degrees), context)
    angle = -math.radians(degrees % 360.0)
    a, b, d = round(math.cos(angle), 15), round(math.sin(angle), 15), round(-math.sin(angle), 15)
    x, y = context.width / 2, context.height / 2
    return _fixed_point((a, b, a * -x + b * -y + x, d, a, d * -x + a * -y + y))


def _blend(name: str, factor: float, context: ImageContext) -> Setting:
    if context.pil:
        return Setting(f"{name}_pil", real=(factor, *(0.0,) * 5))
    return Setting(name, real=(factor, 1.0 - factor, *(0.0,) * 4))


def _brightness(factor: float) -> Setting:
    """Blend with black: the same for both semantics, and a table."""
    levels = torch.arange(256) * torch.tensor(factor, dtype=torch.float32)
    return Setting("lut", lut=levels.clamp(0, 255).to(torch.uint8))


def _posterize(bits: int) -> Setting:
    return Setting("lut", lut=(torch.arange(256) & -(2 ** (8 - bits))).to(torch.uint8))


def _solarize(threshold: float, context: ImageContext) -> Setting:
    """Invert from the threshold on: Pillow compares in float64, torchvision in float32."""
    levels = torch.arange(256, dtype=torch.float64 if context.pil else torch.float32)
    return Setting("lut", lut=torch.where(levels < threshold, levels, 255 - levels).to(torch.uint8))


def _invert() -> Setting:
    return Setting("lut", lut=torch.arange(255, -1, -1, dtype=torch.uint8))


def _autocontrast(context: ImageContext) -> Setting:
    return Setting("autocontrast_pil" if context.pil else "autocontrast")


OPERATIONS: dict[str, Callable[[float, ImageContext], Setting]] = {
    "Identity": lambda magnitude, context: Setting(),
    "ShearX": lambda magnitude, context: _shear(magnitude, 0.0, context),
    "ShearY": lambda magnitude, context: _shear(0.0, magnitude, context),
    "TranslateX": lambda magnitude, context: _translate(int(magnitude), 0, context),
    "TranslateY": lambda magnitude, context: _translate(0, int(magnitude), context),
    "Rotate": lambda magnitude, context: _rotate(magnitude, context),
    "Brightness": lambda magnitude, context: _brightness(1.0 + magnitude),
    "Color": lambda magnitude, context: _blend("color", 1.0 + magnitude, context),
    "Contrast": lambda magnitude, context: _blend("contrast", 1.0 + magnitude, context),
    "Sharpness": lambda magnitude, context: _blend("sharpness", 1.0 + magnitude, context),
    "Posterize": lambda magnitude, context: _posterize(int(magnitude)),
    "Solarize": lambda magnitude, context: _solarize(magnitude, context),
    "AutoContrast": lambda magnitude, context: _autocontrast(context),
    "Equalize": lambda magnitude, context: Setting("equalize"),
    "Invert": lambda magnitude, context: _invert(),
}


def make_setting(name: str, magnitude: float, context: ImageContext) -> Setting:
    """Return torchvision's operation ``name`` at a signed ``magnitude``.

    Raises:
        InputError: there is no such operation.
    """
    if name not in OPERATIONS:
        raise unknown("operation", name, list(OPERATIONS))
    return OPERATIONS[name](magnitude, context)
