"""accelerate and transformers' Trainer around students."""

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainingArguments

import daqakd

from .loops import Images, Words, check_runs_quantized, image_model, quantized, text_model
from .trial import METHODS


@pytest.fixture(autouse=True)
def _one_precision_a_test() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)


def one_epoch(accelerator: Accelerator, student: nn.Module, optimizer, loader) -> None:
    for x, y in loader:
        loss = nn.functional.cross_entropy(student.train()(x), y)
        accelerator.backward(loss)
        accelerator.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        assert loss.isfinite()


@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_accelerate(method, precision, tmp_path):
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    loader, images = DataLoader(Images(), batch_size=8), Images().images
    student = daqakd.calibrate(quantized(image_model(), method), loader)
    optimizer = torch.optim.AdamW(daqakd.param_groups(student, 1e-3, 1e-4), lr=1e-3)
    student, optimizer, loader = accelerator.prepare(student, optimizer, loader)
    one_epoch(accelerator, student, optimizer, loader)
    accelerator.save_state(tmp_path)
    with torch.inference_mode():
        wanted = check_runs_quantized(student.eval(), images)
    one_epoch(accelerator, student, optimizer, loader)
    accelerator.load_state(tmp_path)
    with torch.inference_mode():
        assert torch.equal(student.eval()(images), wanted)


def trainer(student: nn.Module, folder: Path) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=2,
        per_device_train_batch_size=8,
        save_strategy="epoch",
        eval_strategy="epoch",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    return Trainer(student, arguments, train_dataset=Words(), eval_dataset=Words(8))


@pytest.mark.parametrize("method", METHODS)
def test_trainer(method, tmp_path):
    batch = {k: v[None] for k, v in Words()[0].items()}
    student = daqakd.calibrate(quantized(text_model(), method), DataLoader(Words(), 8))
    before = {key: value.clone() for key, value in student.state_dict().items()}
    runner = trainer(student, tmp_path)
    runner.train()
    assert runner.evaluate()["eval_loss"] > 0
    assert any(not torch.equal(v, before[k]) for k, v in student.state_dict().items())
    with torch.no_grad():
        wanted = check_runs_quantized(student.eval(), **batch).logits
    other = quantized(text_model(), method)  # not calibrated: all of it is in the checkpoint
    trainer(other, tmp_path).train(resume_from_checkpoint=True)
    with torch.no_grad():
        assert torch.equal(other.eval()(**batch).logits, wanted)
