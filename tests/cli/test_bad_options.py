"""Options of all commands but run that cannot be meant, and those of another kind."""

import pytest

from ..helpers.refusals import fails, misspelt

HUGE = str(9**30)
MORE = [  # options of one command each
    ("rank", ("--passes", "10001"), "passes: expected at most 10000, got 10001"),
    ("rank", ("--passes", HUGE), "passes: expected an integer from -2.63"),
    ("rank", ("--workers", "1025"), "workers: expected at most 1024, got 1025"),
    ("rank", ("--budget", "nan"), "budget: expected a finite number or None, got nan"),
    ("rank", ("--budget", "inf"), "budget: expected a finite number or None, got inf"),
    ("rank", ("--budget", "0"), "budget: expected more than 0 seconds"),
    ("rank", ("--cmi-weight", "1e400"), "cmi_weight: expected a finite number, got inf"),
    ("rank", ("--pac-weight", "1e300"), "pac_weight: expected a finite number, got 1e.300"),
    ("rank", ("--until-sure",), "until_sure: needs 480 images or more for 3 classes, got 90"),
    ("rank", ("--until-sure", "--strategies", "minimal"), "until_sure: needs two strategies"),
    ("rank", ("--until-sure", "--pac-limit", "1"), "until_sure: .*; drop one of the two"),
    ("rank", ("--device", "cuda"), "device: cuda was asked for, but torch sees no GPU"),
    ("rank", ("--mean", "1e300", "0", "0"), "mean: expected three numbers"),
    ("rank", ("--std", "1e-300", "1", "1"), "std: expected three positive numbers"),
    ("rank", ("--strategies", ""), "unknown strategy ''"),
    ("rank", ("--strategies", "rotate"), "rotate needs a magnitude"),
    ("rank", ("--strategies", "rotate@99"), "rotate needs a magnitude"),
    ("rank", ("--strategies", "cutmix+cutmix"), "cutmix mixes images already"),
    ("rank", ("--model", ""), "unknown model ''"),
    ("rank", ("--model", " "), "unknown model ' '"),
    ("rank", ("--crop", "resized", "--input-size", HUGE), "input_size: expected an integer from"),
    ("rank", ("--crop", "resized", "--crop-scale", "nan", "1"), "crop_scale: expected shares"),
    ("search", ("--compositions", "1"), "compositions: expected 2 to 10000, got 1"),
    ("search", ("--compositions", "10001"), "compositions: expected 2 to 10000, got 10001"),
    ("search", ("--images", "10"), "images: 10 asked for; 10 folds of 3 classes need"),
    ("search", ("--seed", HUGE), "seed: expected an integer from -2.63"),
    ("search", ("--cmi-weight", "nan"), "cmi_weight: expected a finite number, got nan"),
    ("search", ("--workers", "-1"), "workers: expected at least 0, got -1"),
    ("teach", ("--epochs", "0"), "epochs: expected at least 1, got 0"),
    ("teach", ("--epochs", HUGE), "epochs: expected an integer from -2.63"),
    ("teach", ("--batch-size", "-1"), "batch_size: expected at least 1, got -1"),
    ("teach", ("--lr", "-1"), "lr: expected more than 0, got -1"),
    ("teach", ("--lr", "1e300"), "lr: expected a finite number, got 1e.300"),
    ("teach", ("--weight-decay", "nan"), "weight_decay: expected a finite number, got nan"),
    ("teach", ("--holdout", "-0.1"), "holdout: expected a share 0 <= h < 1, got -0.1"),
    ("teach", ("--strategy", "auto"), "unknown strategy 'auto'"),
    ("teach", ("--strategy", ""), "unknown strategy ''"),
    ("teach", ("--model", "resnet"), "unknown model 'resnet'. Did you mean"),
    ("train", ("-w", "0"), "weight_bits: expected an integer from 1 to 8, got 0"),
    ("train", ("-a", HUGE), "act_bits: expected an integer from 1 to 8, got"),
    ("train", ("--method", ""), "unknown method ''"),
    ("train", ("--warmup-steps", HUGE), "warmup_steps: expected an integer from -2.63"),
    ("train", ("--calibration-batches", HUGE), "calibration_batches: expected an integer from -2"),
    ("train", ("--temperature", "1e30"), "temperature: expected from 2.-60 to 2.60, got 1e.30"),
    ("train", ("--temperature", "1e-30"), "temperature: expected from 2.-60 to 2.60, got 1e-30"),
    ("train", ("--label-smoothing", "1"), "label_smoothing: expected less than 1, got 1"),
    ("train", ("--checkpoint-seconds", "-1"), "checkpoint_seconds: expected at least 0, got -1"),
    ("train", ("--strategy", "x"), "unknown strategy 'x'"),
]


@pytest.mark.parametrize(("command", "options", "message"), MORE, ids=lambda v: "".join(v)[:40])
def test_options_of_every_command(tree, finished, tmp_path, capsys, command, options, message):
    line = [command, str(tree), "--out", str(tmp_path / "out")]
    line += [] if command == "teach" else ["--teacher", str(finished)]
    fails([*line, *options], message, capsys)
    assert not (tmp_path / "out").exists()


OTHER = [  # options of another kind; RUN and TREE stand for directories
    ("nope", "unknown command 'nope'"),
    ("rnak", "unknown command 'rnak'. Did you mean 'rank'"),
    ("RANK", "unknown command 'RANK'"),
    ("--nope", "unknown command '--nope'"),
    ("report", "folders: expected a list of run directories, got"),
    ("eval RUN --model nope", "unknown model 'nope'"),
    ("eval RUN --model vgg8", "student.safetensors: does not fit vgg8 with 3 classes"),
    ("eval TREE --teacher RUN --size -1", "size: expected an integer from 1"),
    ("eval TREE --teacher RUN --size 99999", "size: expected an integer from 1 to 32768"),
    ("eval TREE --teacher RUN --mean nan 1 1", "mean: expected three numbers"),
    ("eval TREE --teacher RUN --std 0 1 1", "std: expected three positive numbers"),
    ("eval TREE --teacher RUN --packed", "packed: is for a run's student"),
    ("eval TREE --teacher RUN --device cuda", "device: cuda was asked for"),
    ("eval digits --teacher RUN", "does not fit resnet20 with 10 classes"),
    ("data prepare TREE --out o --size 0", "size: expected an integer from 1"),
    ("data prepare TREE --out o --size 99999", "size: expected an integer from 1"),
    ("data prepare TREE --out o --workers 0", "workers: expected an integer from 1 to 1024"),
    ("data prepare TREE --out o --workers 1025", "workers: expected an integer from 1 to 1024"),
    ("bench --op", "op: expected at least one, got none"),
    ("bench --size", "size: expected at least one, got none"),
    ("bench --dtype", "dtype: expected at least one, got none"),
    ("bench --size 0", "size: expected an integer from 64"),
    ("bench --size 99999999999999999999", "size: expected an integer from 64"),
    ("bench --turns 0", "turns: expected an integer from 1"),
    ("bench --op step --images 0", "images: expected an integer from 1"),
    ("bench --device cuda", "device: cuda was asked for"),
]


@pytest.mark.parametrize(("line", "message"), OTHER)
def test_options_of_the_other_commands(
    tree, finished, tmp_path, monkeypatch, capsys, line, message
):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": str(finished), "TREE": str(tree)}
    fails([places.get(word, word) for word in line.split()], message, capsys)
    assert not [*tmp_path.iterdir()]


MISSPELT = [
    ("rank TREE", "Missing .*--teacher"),
    ("train TREE", "Missing .*--teacher"),
    ("rank", "Missing .*DATA"),
    ("search", "Missing .*DATA"),
    ("eval", "Missing .*RUN"),
    ("data", "Missing .*--out"),
    ("data prepare TREE", "Missing .*--out"),
    ("data unpack TREE --out o", "invalid choice 'unpack'.*prepare"),
    ("doctor x", "Unrecognized options: x"),
    ("report RUN --nope", "Unrecognized options: --nope"),
    ("rank TREE --teacher RUN --images x", "--images.*INT.*'x'"),
    ("rank TREE --teacher RUN --images 1.5", "--images.*INT.*'1.5'"),
    ("rank TREE --teacher RUN --images", "Missing value for argument '--images'"),
    ("rank TREE --teacher RUN --seed 1e3", "--seed.*'1e3'"),
    ("rank TREE --teacher RUN --device gpu", "invalid choice 'gpu'.*--device.*'cpu'"),
    ("rank TREE --teacher RUN --until-sure yes", "Unrecognized options: yes"),
    ("rank TREE --teacher RUN --teacher-dtype float16", "'float16'.*'bfloat16'"),
    ("rank TREE --teacher RUN --semantics cv2", "'cv2'.*--semantics.*'torchvision'"),
    ("rank TREE --teacher RUN --crop none", "'none'.*--crop.*'resized'"),
    ("rank TREE --teacher RUN --mean 1 2", "--mean.*FLOAT FLOAT FLOAT"),
    ("rank TREE --teacher RUN --epochs 3", "Unrecognized options: --epochs"),
    ("search TREE --teacher RUN --compositions 2.5", "--compositions.*'2.5'"),
    ("search TREE --teacher RUN --strategies minimal", "Unrecognized options: --strategies"),
    ("teach TREE --epochs 1.5", "--epochs.*'1.5'"),
    ("teach TREE --lr x", "--lr.*'x'"),
    ("teach TREE --teacher RUN", "Unrecognized options: --teacher"),
    ("train TREE --teacher RUN -w 2.5", "--weight-bits.*'2.5'"),
    ("train TREE --teacher RUN --first-last x", "'x'.*--first-last.*'same'"),
    ("train TREE --teacher RUN --delta x", "'x'.*--delta.*hessian"),
    ("train TREE --teacher RUN --save x", "'x'.*--save.*'codes'"),
    ("train TREE --teacher RUN --optimizer lion", "'lion'.*--optimizer.*'sgd'"),
    ("train TREE --teacher RUN --per-channel 3", "Unrecognized options: 3"),
    ("eval RUN RUN", "Unrecognized options"),
    ("eval TREE --teacher RUN --input-size x", "--input-size.*'x'"),
    ("bench --op nope", "'nope'.*--op"),
    ("bench --dtype int8", "'int8'.*--dtype"),
    ("bench --turns x", "--turns.*'x'"),
    ("bench --device tpu", "'tpu'.*--device"),
]


@pytest.mark.parametrize(("line", "message"), MISSPELT)
def test_options_of_another_kind(tree, finished, tmp_path, monkeypatch, capsys, line, message):
    monkeypatch.chdir(tmp_path)
    places = {"RUN": str(finished), "TREE": str(tree)}
    misspelt([places.get(word, word) for word in line.split()], message, capsys)
    assert not [*tmp_path.iterdir()]
