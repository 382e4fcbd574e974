"""Files of rows: read, compared, drawn, as CSV."""

import csv
import io
import json
import math

import pytest

import daqakd
from daqakd.bench import book, compare, plot
from daqakd.cli.main import main

PROVIDERS = {"eager": 8.0, "compile": 2.0, "native": 1.0}


def row(op, elements, dtype, form, provider, seconds, **more):
    start = {"op": op, "elements": elements, "dtype": dtype, "form": form, "provider": provider}
    floor = elements * 20 / 1e10 / seconds if seconds else None
    start |= {"seconds": seconds, "of_floor": floor, "images_per_second": None, "spread": 0.05}
    return start | {"note": "" if seconds else "its values are wrong", "convention": ""} | more


def record(factor=1.0, **more):
    rows = [
        row(op, size, "float32", form, name, factor * times * size * 1e-9)
        for op in ("lsq", "a_long_name_of_an_op")
        for size in (1024, 16777216)
        for form in ("tensor", "a-form-with-a-long-name")
        for name, times in PROVIDERS.items()
    ]
    made = {"date": "2026-11-28", "processor": "P", "gpu": None, "cores": 2, "threads": 2}
    made |= {"python": "3.11", "device": "cpu", "packages": {"torch": "2.14.1", "triton": None}}
    return made | {"copy_bytes_per_second": 1e10, "turns": 9, "rows": rows} | more


@pytest.fixture
def files(tmp_path):
    """Return two files; the second is twice as fast and has other rows at its ends."""
    first, second = record(), record(0.5)
    del first["rows"][-1], second["rows"][0]
    second["rows"][0] |= {"seconds": None}
    paths = tmp_path / "a.json", tmp_path / "b.json"
    for path, content in zip(paths, (first, second), strict=True):
        book.write_book(path, content)
    return paths


def test_rows_are_paired_and_the_others_are_listed(files):
    a, b = map(book.read_book, files)
    found = compare.compare_books(a, b)
    assert len(found.pairs) == 21
    assert {pair.ratio for pair in found.pairs} == {2.0}
    assert [key[-1] for key in found.only_a] == ["eager", "compile"]
    assert [key[-1] for key in found.only_b] == ["native"]
    assert list(found.by_op()) == ["lsq", "a_long_name_of_an_op"]
    assert found.warnings() == []


def test_the_mean_of_ratios_is_geometric():
    pairs = [compare.Pair(("x",), a, 1.0, 0.0) for a in (0.25, 1.0, 8.0)]
    assert compare.mean_ratio(pairs) == pytest.approx(2 ** (1 / 3))


@pytest.mark.parametrize(("ratio", "noise", "within"), [(1.09, 0.1, True), (0.91, 0.1, True)])
@pytest.mark.parametrize("more", [0.0, 0.2])
def test_what_is_within_the_spread_of_the_rounds(ratio, noise, within, more):
    far = ratio + math.copysign(more, ratio - 1)
    assert compare.Pair(("x",), far, 1.0, noise).within_noise == (within and not more)


@pytest.mark.parametrize("width", [60, 80, 100])
def test_the_table_fits_the_terminal(files, width):
    found = compare.compare_books(*map(book.read_book, files))
    lines = compare.terminal_table(found, width)
    assert max(map(len, lines)) <= width
    text = "\n".join(lines)
    assert "lsq: geometric mean 2.00 of 10" in text
    assert "only in B: a_long_name_of_an_op 16777216 float32" in text
    assert ("a-form-with-a-long-name" in text) == (width > 60)


def test_other_machines_are_told(files):
    other = record(threads=1, processor="Q")
    book.write_book(files[1], other)
    found = compare.compare_books(*map(book.read_book, files))
    assert "careful: the files differ in processor, threads" in compare.terminal_table(found, 80)


@pytest.mark.parametrize("width", ["20", "72", "500"])
def test_the_command_prints_and_writes(files, tmp_path, capsys, monkeypatch, width):
    monkeypatch.setenv("COLUMNS", width)
    out = tmp_path / "page.md"
    assert main(["bench", "compare", *map(str, files), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 100 for line in lines[:-1])
    assert "## lsq: geometric mean 2.00 of 10" in out.read_text()
    assert "## Only in A" in out.read_text()


def test_the_comparison_as_csv(files, tmp_path):
    out = tmp_path / "rows.csv"
    assert main(["bench", "compare", *map(str, files), "--out", str(out)]) == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 24
    assert [one["ratio"] for one in rows if one["op"] == "lsq"].count("2.0") == 10
    assert rows[-1]["a_seconds"] == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"rows": [{"op": "lsq"}]}, "expected rows with op, elements, dtype, form, provider and"),
        ({"rows": [row("lsq", 1, "float32", "t", "x", -1.0)]}, "expected rows with"),
        ({"rows": {}}, "expected rows with"),
        ({"rows": [row("other", 1, "float32", "t", "x", 1.0)]}, "no timed row in common; time"),
        ([], "damaged"),
    ],
)
def test_other_files_are_told(files, content, message, capsys):
    files[1].write_text(json.dumps(content))
    assert main(["bench", "compare", *map(str, files)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_a_page_of_another_kind(files, capsys):
    assert main(["bench", "compare", *map(str, files), "--out", "page.pdf"]) == 2
    assert "expected a file that ends in .md or .csv, got 'page.pdf'" in capsys.readouterr().err


def test_every_line_of_the_csv_has_machine_and_versions():
    lines = list(csv.DictReader(io.StringIO(book.csv_text(record()))))
    assert len(lines) == 24
    assert {line["processor"] for line in lines} == {"P"}
    assert {line["torch version"] for line in lines} == {"2.14.1"}
    assert "triton version" not in lines[0]
    assert float(lines[2]["seconds"]) == 1024e-9
    assert list(lines[0])[: len(book.ROW)] == list(book.ROW)


def test_bars_are_means_over_what_both_have():
    rows = [row("lsq", 64, "float32", form, "eager", 8.0) for form in ("a", "b")]
    rows[1:1] = [row("lsq", 64, "float32", "a", "native", 4.0)]
    rows += [row("lsq", 64, "float32", "b", "native", 1.0)]
    rows += [row("lsq", 64, "float32", "c", "native", 1e9)]  # without the first provider
    assert plot.speeds(rows) == ("eager", {64: {"eager": 1.0, "native": pytest.approx(4.0)}})


def test_a_gpus_own_time_goes_before_wall_time():
    assert plot.share_of_floor({"of_floor": 0.5}) == 0.5
    assert plot.share_of_floor({"of_floor": 0.5, "device_of_floor": 0.9}) == 0.9
    assert plot.share_of_floor({"of_floor": 0.5, "device_of_floor": None}) == 0.5


def test_the_command_draws(files, tmp_path):
    out = tmp_path / "pictures"
    assert main(["bench", "plot", str(files[0]), "--out", str(out)]) == 0
    for name in (plot.BARS, plot.ROOFLINE):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_nothing_to_draw(tmp_path):
    rows = [row("lsq", 64, "float32", "a", "native", None)]
    empty = book.Book(tmp_path / "x.json", record() | {"rows": rows})
    with pytest.raises(daqakd.InputError, match="none of its rows was timed"):
        plot.draw_bars(empty)
    of_steps = [row("step", 64, "float32", "lsq", "native", 1.0, of_floor=None)]
    assert plot.draw_roofline(book.Book(tmp_path / "x.json", record() | {"rows": of_steps})) is None


def test_help_knows_both(capsys):
    for command in ("compare", "plot"):
        with pytest.raises(SystemExit):
            main(["bench", command, "--help"])
        assert f"usage: daqakd bench {command}" in capsys.readouterr().out
