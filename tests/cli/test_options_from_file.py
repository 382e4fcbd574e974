"""``--config``: options from a file, below those of the command line and above defaults."""

import pytest

import daqakd.cli.bench
import daqakd.cli.rank
import daqakd.cli.report
import daqakd.cli.run
from daqakd.cli.main import COMMANDS, main

from ..helpers.refusals import fails, misspelt
from ..helpers.small import RUN


@pytest.fixture
def parsed(monkeypatch, tmp_path):
    """Return a function that parses a command line with a file's text and returns the options."""
    found = []
    for command in (daqakd.cli.bench, daqakd.cli.rank, daqakd.cli.report, daqakd.cli.run):
        monkeypatch.setattr(command, "run", found.append)

    def parse(text: str, *arguments: str):
        path = tmp_path / "options.toml"
        path.write_text(text)
        assert main([*arguments, "--config", str(path)]) == 0
        return found.pop()

    return parse


def test_the_line_goes_over_the_file_and_the_file_over_defaults(parsed):
    text = 'data = "digits"\nepochs = 3\nlr = 1\nweight-bits = 4\nseed = 5\nper_channel = true\n'
    options = parsed(text, "run", "--epochs", "7", "-a", "3")
    assert (options.data, options.seed, options.training.batch_size) == ("digits", 5, 128)
    assert (options.training.epochs, repr(options.training.lr)) == (7, "1.0")
    layers = options.quantization
    assert (layers.weight_bits, layers.act_bits, layers.per_channel) == (4, 3, True)
    assert parsed(text, "run", "cifar10").data == "cifar10"


def test_values_that_toml_cannot_say(parsed):
    text = (
        '[rank]\nteacher = "a.pth"\nmean = [0, 0.5, 1]\nstrategies = []\nbudget = "None"\n[run]\n'
    )
    options = parsed(text, "rank", "digits")
    assert (options.teacher.name, options.input.mean) == ("a.pth", (0.0, 0.5, 1.0))
    assert options.ranking.strategies is options.ranking.budget is None
    assert parsed('runs = ["a", "b"]\n', "report").runs[1].name == "b"
    assert parsed('op = ["lsq"]\n[bench]\nturns = 3\n', "bench").turns == 3


WRONG = [
    ("epoch = 3", "unknown option 'epoch'. Did you mean 'epochs'"),
    ("pact_alpha = 3.0", "unknown option 'pact_alpha'"),
    ('config = "x"', "unknown option 'config'"),
    ('epochs = "3"', "epochs: expected an integer, got '3'"),
    ("lr = true", "lr: expected a finite number, got True"),
    ("mean = [0.5]", "mean: expected a tuple of 3, each a finite number or None"),
    ('method = "lsqq"', "unknown method 'lsqq'"),
    ("[rnu]", "unknown section 'rnu'. Did you mean 'run'"),
    ("[rank]\nimages = 3", "has options of rank, none of run; rename the section"),
    ("epochs = ", "expected TOML"),
]


@pytest.mark.parametrize(("text", "message"), WRONG)
def test_what_a_file_must_not_say(tmp_path, capsys, text, message):
    path = tmp_path / "options.toml"
    path.write_text(text)
    line = ["run", "digits", "--out", str(tmp_path / "out"), "--config", str(path)]
    fails(line, message, capsys)
    fails([*line[:-2], f"--config={path}"], message, capsys)
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_not_there(tmp_path, capsys):
    fails(["rank", "--config", str(tmp_path / "x.toml")], "x.toml: No such file", capsys)
    misspelt(["rank", "--config"], "Missing value for argument '--config'", capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_takes_a_file(command, capsys):
    with pytest.raises(SystemExit):
        main([command, "--help"])
    assert "--config FILE.toml" in capsys.readouterr().out


def test_the_options_that_a_run_kept_are_taken_as_they_are(finished, tree, capsys):
    """They are the finished run's own, so that nothing is done again."""
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*.safetensors")}
    assert main(["run", "--config", str(finished / "config.toml"), "--out", str(finished)]) == 0
    assert {p: p.stat().st_mtime_ns for p in finished.rglob("*.safetensors")} == before
    line = ["run", str(tree), *RUN, "--out", str(finished), "--epochs", "2"]
    line += ["--config", str(finished / "config.toml")]
    fails(line, r"of another configuration: epochs \(1 there, 2 here\)", capsys)
