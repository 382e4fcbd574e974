"""Options of run that cannot be meant: each is named in one sentence, and nothing is left."""

import pytest

from ..helpers.refusals import fails
from ..helpers.small import BUILDERS, RUN


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-w", "9"), "weight_bits.*integer from 1 to 8, got 9"),
        (("-a", "0"), "act_bits.*integer from 1 to 8, got 0"),
        (("-w", "1"), "no positive code for LSQ.*use 2 bits or more"),
        (("--strategy", "cutmx"), "unknown strategy 'cutmx'.*Did you mean 'cutmix'"),
        (("--strategies", "cutmx"), "unknown strategy 'cutmx'.*Did you mean 'cutmix'"),
        (("--model", "resnet22"), "unknown model 'resnet22'.*Did you mean"),
        (("--method", "pakt"), "unknown method 'pakt'.*Did you mean 'pact'"),
        (("--lr", "0"), "lr: expected more than 0"),
        (("--lr", "inf"), "lr: expected a finite number, got inf"),
        (("--lr", "nan"), "lr: expected a finite number, got nan"),
        (("--lr", "-0.1"), "lr: expected more than 0, got -0.1"),
        (("--quantizer-lr", "-1"), "quantizer_lr: expected at least 0, got -1"),
        (("--teacher-lr", "0"), "lr: expected more than 0, got 0"),
        (("--weight-decay", "-1"), "weight_decay: expected at least 0, got -1"),
        (("--epochs", "0"), "epochs: expected at least 1, got 0"),
        (("--teacher-epochs", "-1"), "epochs: expected at least 1, got -1"),
        (("--batch-size", "0"), "batch_size: expected at least 1, got 0"),
        (("--calibration-batches", "0"), "calibration_batches: expected at least 1, got 0"),
        (("--warmup-steps", "-1"), "warmup_steps: expected at least 0, got -1"),
        (("--temperature", "0"), "temperature: expected more than 0, got 0"),
        (("--temperature", "inf"), "temperature: expected a finite number, got inf"),
        (("--ce-weight", "-1"), "ce_weight: expected at least 0, got -1"),
        (("--kd-weight", "nan"), "kd_weight: expected a finite number, got nan"),
        (("--label-smoothing", "2"), "label_smoothing: expected less than 1, got 2"),
        (("--checkpoint-seconds", "nan"), "checkpoint_seconds: expected a finite number"),
        (("--workers", "-1"), "workers: expected at least 0, got -1"),
        (
            ("--seed", str(2**64)),
            "seed: expected an integer from -2.63 to 2.64 - 1, got 18446744073709551616",
        ),
        (("--seed", str(-(2**63) - 1)), "seed: expected an integer from -2.63 to 2.64 - 1, got -9"),
        (("--size", "0"), "size: expected an integer from 1 to 32768, got 0"),
        (("--size", "-3"), "size: expected an integer from 1 to 32768, got -3"),
        (("--size", "9" * 20), "size: expected an integer from 1 to 32768, got 9"),
        (("--holdout", "1"), "holdout: expected a share 0 <= h < 1, got 1"),
        (("--holdout", "nan"), "holdout: expected a share 0 <= h < 1, got nan"),
        (("--images", "91"), "91 asked for; 10 folds .* and the data set has 90"),
        (("--images", "0"), "images: expected at least 1, got 0"),
        (("--images", "59"), "59 asked for; 10 folds of 3 classes need"),
        (("--images", "9" * 20), "images: .* from -2.63 to .*, got 9"),
        (("--passes", "0"), "passes: expected at least 1, got 0"),
        (("--budget", "-1"), "budget: expected more than 0 seconds, got -1"),
        (("--pac-limit", "nan"), "pac_limit: expected a finite number"),
        (("--cmi-weight", "inf"), "cmi_weight: expected a finite number, got inf"),
        (("--mean", "nan", "0", "0"), r"mean: expected three numbers.*got \(nan"),
        (("--std", "0", "1", "1"), r"std: expected three positive numbers.*got \(0"),
        (("--teacher-strategy", "x"), "unknown strategy 'x'"),
        (("--strategies",), "strategies: need at least one"),
        (("--model", ":"), "model ':': cannot be imported.*expected package.module:function"),
        (("--model", ":x"), "model ':x': cannot be imported"),
        (("--model", "os:"), "model 'os:': cannot be imported"),
        (("--model", "no.such:thing"), "cannot be imported .ModuleNotFoundError"),
        (("--model", "os:path"), "path is not callable"),
        (("--model", f"{BUILDERS}:fails"), "fails.num_classes=3. failed with RuntimeError: no wei"),
        (("--model", f"{BUILDERS}:other_argument"), "failed with TypeError: .*num_classes"),
        (("--model", f"{BUILDERS}:exits"), r"exits.num_classes=3. failed with SystemExit: no weig"),
        (("--model", "tests.helpers.exiting:x"), "cannot be imported .SystemExit: a script"),
        (("--model", "tests.helpers"), "no name of ours; a function of yours is tests:helpers"),
        (("--model", f"{BUILDERS}:without_values"), "weights are on the meta device"),
        (("--model", f"{BUILDERS}:frozen"), "no parameter requires a gradient.*requires_grad_"),
        (("--model", f"{BUILDERS}:number"), "returned a int, expected a torch.nn.Module"),
        (("--model", f"{BUILDERS}:lazy"), "1.weight is lazy.*run the model once on a batch"),
        (("--model", f"{BUILDERS}:large_images"), r"forward pass fails on images of \(3, 16, 16\)"),
        (("--model", f"{BUILDERS}:more_classes"), r"returned \(2, 5\) .*expected logits \(2, 3\)"),
        (("--model", f"{BUILDERS}:pixels"), r"returned \(2, 3, 16, 16\) .*expected logits \(2, 3"),
        (("--model", f"{BUILDERS}:nothing"), "returned a dict without a tensor; expected logits"),
        (("--input-size", "24"), "input_size: 24 asked for.*add --crop resized, or leave --input-"),
        (
            ("--crop", "pad", "--jitter", *"1111"),
            "jitter: .*only resized crops have it; add --crop",
        ),
        (("--crop-scale", "0.1", "1"), r"crop_scale: \(0.1, 1.0\) asked for.*add --crop resized"),
        (
            ("--crop", "resized", "--input-size", "0"),
            "error: input_size: expected an integer from 1",
        ),
        (("--crop", "resized", "--crop-scale", "1", "2"), "error: crop_scale: expected shares"),
        (
            ("--crop", "resized", "--jitter", *"1111"),
            "error: jitter: expected brightness.*0.5, got",
        ),
    ],
    ids=lambda v: "".join(v) if isinstance(v, tuple) else "",
)
def test_options_leave_no_trace(tree, tmp_path, capsys, options, message):
    out = tmp_path / "out"
    fails(["run", str(tree), "--out", str(out), *RUN, *options], message, capsys)
    assert not out.exists()
