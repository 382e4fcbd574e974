"""Options of a teacher's training: fields of ``TrainConfig``, with a teacher's defaults."""

import ast
import inspect
import re
from dataclasses import dataclass, field, fields, make_dataclass, replace
from functools import cache
from textwrap import dedent
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import tyro

from ..train import TrainConfig
from ._options import OptionalInt, shown

PREFIX = "teacher_"  # of the teacher's options where a student has options of the same names
SGD = TrainConfig(optimizer="sgd", lr=0.1, weight_decay=5e-4)
FIELDS: tuple[str, ...] = (
    "epochs",
    "batch_size",
    "optimizer",
    "momentum",
    "nesterov",
    "lr",
    "weight_decay",
)
FIELDS += ("schedule", "schedule_by", "milestones", "lr_gamma")
FIELDS += ("warmup_steps", "warmup_epochs", "warmup_start", "label_smoothing", "clip_grad")
FIELDS += ("accumulate", "reestimate_bn", "sync_bn", "precision", "compile")


@cache
def docs_of(config: type) -> dict[str, str]:
    """Return what stands below each field of a dataclass."""
    (made,) = ast.parse(dedent(inspect.getsource(config))).body
    assert isinstance(made, ast.ClassDef)
    return {
        one.target.id: " ".join(text.value.value.split())
        for one, text in zip(made.body, made.body[1:], strict=False)
        if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)
        if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
        if isinstance(text.value.value, str)
    }


def _prefixed(text: str, prefix: str) -> str:
    """Return help whose mentions of the recipe's options name those with the prefix."""
    for name in FIELDS:
        option = name.replace("_", "-")
        text = re.sub(rf"--{option}\b(?!-)", f"--{prefix.replace('_', '-')}{option}", text)
    return text


def _recipe(title: str, *hidden: str, prefix: str = "") -> type:
    """Return a dataclass of the recipe's fields but for the ``hidden`` ones."""
    hints, docs = get_type_hints(TrainConfig), docs_of(TrainConfig)
    made: list[tuple[str, Any, Any]] = []
    for name in FIELDS:
        if name not in hidden:
            default = getattr(SGD, name)
            kind = shown(name, hints[name], default, help=_prefixed(docs[name], prefix))
            made.append((prefix + name, kind, field(default=default)))
    namespace = {"__doc__": title}
    return make_dataclass("Teaching", made, namespace=namespace, frozen=True, kw_only=True)


TITLE = "Options of the teacher's own training."
if TYPE_CHECKING:
    TeachGroup = TrainConfig

    class _Prefixed: ...

else:
    TeachGroup = Annotated[_recipe(TITLE), tyro.conf.OmitArgPrefixes]
    _Prefixed = _recipe(TITLE, "batch_size", prefix=PREFIX)


@dataclass(frozen=True, kw_only=True)
class TeacherOptions(_Prefixed):
    """Options of the teacher's own training."""

    teacher_batch_size: OptionalInt = None
    """Images per step; those of --batch-size by default."""
    teacher_strategy: str = "minimal"
    """The teacher's own augmentation."""


def teacher_config(group: Any, **changes: Any) -> TrainConfig:
    """Return a teacher's whole configuration; what the group leaves at None is in ``changes``."""
    given = {f.name.removeprefix(PREFIX): getattr(group, f.name) for f in fields(group)}
    known = {name: given[name] for name in FIELDS if given.get(name) is not None}
    return replace(SGD, **{**changes, **known})
