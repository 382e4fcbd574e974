"""What each verb of the command line does."""

import json
from collections.abc import Callable
from dataclasses import asdict, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import _console, options
from ._errors import InputError
from ._files import write_json
from ._ops import OPS
from ._packing import build_facts
from .augment import PAPER, get_strategy
from .backends import can_run
from .data import Dataset, load
from .models import build
from .models import find as find_model
from .quant import quantize
from .rank import Ranking, rank
from .report import report
from .report.bench import bench_into
from .train import TrainConfig, accuracy, distill, teach
from .train.config import read, settle
from .train.environment import environment
from .train.store import ModelFile, load_model, read_model_file, save_model, save_packed

DEFAULT_MODEL = "resnet20"
PACKED = "student.packed"
NOT_IN_CONFIG = {"out", "device", "workers", "checkpoint_seconds"}


def device_of(choice: str) -> torch.device:
    """Return the device to compute on."""
    if choice == "cuda" and not torch.cuda.is_available():
        raise InputError("device: cuda was asked for, but torch sees no GPU; see daqakd doctor")
    use_gpu = choice != "cpu" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def data_of(verb: options.Common, file: ModelFile | None = None) -> Dataset:
    """Load the data set, normalised as the options or the teacher's file say."""
    holdout = getattr(verb, "holdout", 0.1)
    dataset = load(verb.data, size=verb.size, holdout=holdout, seed=verb.seed)
    mean = verb.mean or (file.channels("mean") if file else None)
    std = verb.std or (file.channels("std") if file else None)
    return dataset.normalised(mean, std)


def teacher_of(
    file: ModelFile, name: str | None, dataset: Dataset, device: torch.device
) -> nn.Module:
    """Load the teacher onto the device."""
    return load_model(file, name or file.model or DEFAULT_MODEL, dataset.num_classes).to(device)


def check(verb: options.Common) -> None:
    """Raise InputError for names and bits that are wrong, before any long work."""
    if verb.model is not None:
        find_model(verb.model)
    chosen = [getattr(verb, key, "auto") for key in ("strategy", "teacher_strategy")]
    for name in [*getattr(verb, "strategies", ()), *chosen]:
        if name != "auto":
            get_strategy(name)
    if isinstance(verb, options.Quantization):
        quantize(nn.Identity(), **recipe_of(verb))
    if isinstance(verb, options.Student):
        student_config(verb).check()


def begin(verb: options.Common, name: str) -> None:
    """Open the run directory: check the options, settle the configuration, note the environment."""
    check(verb)
    values = {k: v for k, v in asdict(verb).items() if k not in NOT_IN_CONFIG}
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in values.items()}
    settle(verb.out / "config.toml", name, plain)
    if not (verb.out / "env.json").exists():
        write_json(verb.out / "env.json", environment())


def student_config(verb: options.Student) -> TrainConfig:
    """Return the training options of a verb."""
    return TrainConfig(**{f.name: getattr(verb, f.name) for f in fields(TrainConfig)})


def recipe_of(verb: options.Quantization) -> dict[str, Any]:
    """Return the arguments of ``quantize``."""
    return {f.name: getattr(verb, f.name) for f in fields(options.Quantization)}


def doctor(verb: options.Doctor) -> None:
    """Print versions, devices, and every backend's reasons."""
    facts = environment()
    for name, version in facts["packages"].items():
        _console.say(f"{name:14}{version or 'not installed'}")
    _console.say(f"{'processor':14}{facts['processor']}, {facts['cores']} cores")
    _console.say(f"{'GPU':14}{facts['gpu'] or 'none that torch sees'}")
    print_build()
    stems = sorted({op.removesuffix("_forward") for op in OPS if not op.endswith("backward")})
    for device in ("cpu", "cuda") if facts["gpu"] else ("cpu",):
        _console.say(f"\nops on {device} (float32):")
        for stem in stems:
            reasons = {b: can_run(stem, b, device, torch.float32) for b in ("native", "triton")}
            runs = [b for b, why in reasons.items() if why is None]
            _console.say(f"  {stem:20}{', '.join([*runs, 'reference'])}")
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


def run_teach(verb: options.Teach) -> None:
    """Train a teacher and keep it."""
    begin(verb, "teach")
    config = TrainConfig(
        epochs=verb.epochs,
        batch_size=verb.batch_size,
        optimizer="sgd",
        lr=verb.lr,
        weight_decay=verb.weight_decay,
        seed=verb.seed,
        workers=verb.workers,
    )
    teach_into(verb, data_of(verb), config, verb.strategy)


def teach_into(verb: options.Common, dataset: Dataset, config: TrainConfig, strategy: str) -> Path:
    """Train a teacher unless the run directory has it; return its file."""
    path = verb.out / "teacher.safetensors"
    if not path.exists():
        name = verb.model or DEFAULT_MODEL
        torch.manual_seed(config.seed)
        model = build(name, dataset.num_classes).to(device_of(verb.device))
        result = teach(
            model, dataset, strategy=strategy, config=config, run_dir=verb.out, quiet=False
        )
        save_model(path, result.model, name, dataset, strategy=strategy)
    _console.say(f"teacher: {path}")
    return path


def rank_into(
    verb: options.Ranking, common: options.Common, teacher: nn.Module, dataset: Dataset
) -> Ranking:
    """Rank, show the table, write the files."""
    ranking = rank(
        teacher,
        dataset,
        strategies=verb.strategies or PAPER,
        images=verb.images,
        passes=verb.passes,
        seed=common.seed,
        cmi_weight=verb.cmi_weight,
        pac_weight=verb.pac_weight,
        pac_limit=verb.pac_limit,
        workers=common.workers,
        run_dir=common.out,
        quiet=False,
    )
    ranking.save(common.out)
    _console.say(ranking.table)
    return ranking


def run_rank(verb: options.Rank) -> None:
    """Rank with a given teacher."""
    file = read_model_file(verb.teacher)
    begin(verb, "rank")
    dataset = data_of(verb, file)
    rank_into(verb, verb, teacher_of(file, verb.model, dataset, device_of(verb.device)), dataset)


def choose_strategy(verb: options.Train | options.Run, teacher: nn.Module, dataset: Dataset) -> str:
    """Return the strategy to train with, ranking when it is ``auto``."""
    if verb.strategy != "auto":
        return get_strategy(verb.strategy).name
    ranking = rank_into(verb, verb, teacher, dataset)
    others = f"; tied with it: {', '.join(ranking.tied)}" if ranking.tied else ""
    _console.say(f"strategy: {ranking.best}, the lowest score{others}")
    return ranking.best


def train_into(verb: options.Train | options.Run, file: ModelFile, dataset: Dataset) -> Path:
    """Choose the strategy and train the student unless the run directory has it."""
    path = verb.out / "student.safetensors"
    if path.exists():
        pack_into(verb.out)
        return path
    device = device_of(verb.device)
    name = verb.model or file.model or DEFAULT_MODEL
    teacher = teacher_of(file, name, dataset, device)
    recipe = recipe_of(verb)
    student = quantize(teacher, **recipe)
    strategy = choose_strategy(verb, teacher, dataset)
    config = student_config(verb)
    result = distill(
        student,
        teacher,
        dataset,
        strategy=strategy,
        config=config,
        run_dir=verb.out,
        quiet=False,
    )
    save_model(path, result.model, name, dataset, recipe, strategy)
    pack_into(verb.out)
    return path


def pack_into(out: Path) -> None:
    """Write the student's packed form unless the run directory has it."""
    path = out / f"{PACKED}.safetensors"
    if not path.exists():
        student = read_model_file(out, "student")
        size, full = save_packed(path, student), student.path.stat().st_size
        _console.say(f"packed student: {path}, {size:,} bytes (unpacked {full:,})")


def run_train(verb: options.Train) -> None:
    """Train a student with a given teacher."""
    file = read_model_file(verb.teacher)
    begin(verb, "train")
    train_into(verb, file, data_of(verb, file))
    _console.say(f"student: {verb.out / 'student.safetensors'}")


def test_accuracy(
    file: ModelFile, name: str | None, dataset: Dataset, device: torch.device
) -> float:
    """Return a model file's accuracy on the test images."""
    model = teacher_of(file, name, dataset, device)
    return accuracy(model, dataset.test, dataset.mean, dataset.std, device)


def run_eval(verb: options.Eval) -> None:
    """Evaluate a run's student, or a teacher."""
    device = device_of(verb.device)
    if verb.teacher is not None and verb.packed:
        raise InputError("packed: is for a run's student, not for --teacher; drop one of the two")
    if verb.teacher is not None:
        file = read_model_file(verb.teacher)
        dataset = load(verb.target, size=verb.size, holdout=0).normalised(
            verb.mean or file.channels("mean"), verb.std or file.channels("std")
        )
        share = test_accuracy(file, verb.model, dataset, device)
        _console.say(f"teacher {file.path}: {share:.2%} of {len(dataset.test)} test images")
        return
    out = Path(verb.target)
    noted = read(out / "config.toml")
    config = noted.get("train") or noted.get("run")
    if config is None:
        raise InputError(f"{out}: has no student; it holds {', '.join(noted)}. Run train first")
    file = read_model_file(out, PACKED if verb.packed else "student")
    dataset = load(config["data"], size=config.get("size"), holdout=0).normalised(
        file.channels("mean"), file.channels("std")
    )
    evaluate_into(out, {"packed" if verb.packed else "student": file}, None, dataset, device)


def evaluate_into(
    out: Path,
    files: dict[str, ModelFile],
    name: str | None,
    dataset: Dataset,
    device: torch.device,
) -> dict[str, float]:
    """Evaluate models on the test images, once, and add them to ``eval.json``."""
    shares = {role: test_accuracy(f, name, dataset, device) for role, f in files.items()}
    for role, share in shares.items():
        _console.say(f"{role}: {share:.2%} of {len(dataset.test)} test images")
    path = out / "eval.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    for role, share in shares.items():
        record |= {f"{role}_accuracy": share, f"{role}_bytes": files[role].path.stat().st_size}
    write_json(path, {**record, "test_images": len(dataset.test)})
    return shares


def run_run(verb: options.Run) -> None:
    """Teach or take a teacher, rank, train, evaluate, report."""
    given = None if verb.teacher is None else read_model_file(verb.teacher)
    begin(verb, "run")
    dataset = data_of(verb, given)
    if given is None:
        config = TrainConfig(
            epochs=verb.teacher_epochs,
            batch_size=verb.batch_size,
            optimizer="sgd",
            lr=verb.teacher_lr,
            weight_decay=5e-4,
            seed=verb.seed,
            workers=verb.workers,
        )
        given = read_model_file(teach_into(verb, dataset, config, verb.teacher_strategy))
    student = read_model_file(train_into(verb, given, dataset), "student")
    if not (verb.out / "eval.json").exists():
        files = {"teacher": given, "student": student}
        evaluate_into(verb.out, files, verb.model, dataset, device_of(verb.device))
    if find_spec("matplotlib") is None:
        _console.say("report: skipped, it needs matplotlib (pip install 'daqakd[report]')")
        return
    _console.say(f"report: {report([verb.out])}")


def run_report(verb: options.Report) -> None:
    """Write the report of finished runs."""
    _console.say(f"report: {report(verb.runs, verb.out)}")


def run_bench(verb: options.Bench) -> None:
    """Time the ops."""
    device = device_of(verb.device).type
    bench_into(verb.out, verb.op, verb.size, verb.dtype, device, verb.turns)


ACTIONS: dict[type, Callable[[Any], None]] = {
    options.Doctor: doctor,
    options.Teach: run_teach,
    options.Rank: run_rank,
    options.Train: run_train,
    options.Eval: run_eval,
    options.Report: run_report,
    options.Run: run_run,
    options.Bench: run_bench,
}
