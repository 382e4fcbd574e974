"""Lightning: a student fitted with a teacher's logits, validated, saved and loaded again."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from torch.utils.data import DataLoader

import daqakd

from .loops import Images, check_runs_quantized, image_model, norm_model, quantized
from .trial import with_methods

BUILDERS = {"transformer": image_model, "batchnorm": norm_model}


class Distilled(lightning.LightningModule):
    """A student beside its teacher."""

    def __init__(self, kind: str = "transformer", method: str = "lsq") -> None:
        super().__init__()
        self.save_hyperparameters()
        torch.manual_seed(0)
        self.teacher = BUILDERS[kind]().eval().requires_grad_(False)
        self.student = quantized(self.teacher.requires_grad_(True), method)
        self.teacher.requires_grad_(False)
        self.in_inference_mode: list[bool] = []

    def training_step(self, batch, _):
        images, labels = batch
        return daqakd.functional.kd_loss(self.student(images), self.teacher(images), labels)

    def validation_step(self, batch, _):
        images, labels = batch
        self.in_inference_mode.append(torch.is_inference_mode_enabled())
        logits = check_runs_quantized(self.student, images)
        self.log("val_loss", torch.nn.functional.cross_entropy(logits, labels))

    def configure_optimizers(self):
        return torch.optim.AdamW(daqakd.param_groups(self.student, 1e-3, 1e-4), lr=1e-3)


def trainer(folder, **options) -> lightning.Trainer:
    return lightning.Trainer(
        **{"max_epochs": 2, "enable_checkpointing": False, **options},
        accelerator="cpu",
        logger=False,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=1.0,
    )


@pytest.fixture
def loader() -> DataLoader:
    return DataLoader(Images(), batch_size=8)


@pytest.mark.parametrize(("kind", "method"), with_methods([*BUILDERS, *BUILDERS]))
def test_fit_validate_and_load(kind, method, loader, tmp_path):
    module, images = Distilled(kind, method), Images().images
    daqakd.calibrate(module.student, loader)
    runner = trainer(tmp_path)
    runner.fit(module, loader, loader)
    module.in_inference_mode.clear()
    [result] = runner.validate(module, loader)
    assert module.in_inference_mode == [True, True]
    runner.save_checkpoint(tmp_path / "run.ckpt")
    again = Distilled.load_from_checkpoint(tmp_path / "run.ckpt").eval()
    with torch.no_grad():
        assert torch.equal(again.student(images), module.eval().student(images))
    [other] = trainer(tmp_path).validate(again, loader)
    assert other == result
    longer = Distilled(kind, method)
    trainer(tmp_path, max_epochs=3).fit(longer, loader, loader, ckpt_path=tmp_path / "run.ckpt")
    assert longer.student(images).isfinite().all()


@pytest.mark.parametrize(
    "average",
    [lambda: StochasticWeightAveraging(1e-3, 1, 1), lambda: EMAWeightAveraging(decay=0.9)],
    ids=["swa", "ema"],
)
def test_averages(average, loader, tmp_path):
    module = Distilled("batchnorm")
    daqakd.calibrate(module.student, loader)
    trainer(tmp_path, max_epochs=3, callbacks=[average()]).fit(module, loader, loader)
    check_runs_quantized(module.student.eval(), Images().images)


def test_a_student_that_was_not_calibrated_says_so(loader, tmp_path):
    with pytest.raises(daqakd.InputError, match=r"call daqakd\.calibrate"):
        trainer(tmp_path).fit(Distilled(), loader, loader)
