"""README's table says what the result files say."""

import json

import pytest

from benchmarks import readme_table
from benchmarks.readme_table import README, Line, numbers, rows_of_page, span, table, with_table
from daqakd.bench.book import write_book

PAGE = """# A page

| op | native | against eager |
|---|---|---|
| lsq | **1.0** | 8.0 x |

## 16,777,216 elements

| op | a | a | against eager | against compile |
|---|---|---|---|---|
| pact, again | 1 | 2 | 0.5 x | - |
| lsq | 3 | 4 | 12.34 x | 0.94 x |
"""


@pytest.fixture
def results(tmp_path):
    (tmp_path / "page.md").write_text(PAGE)
    return tmp_path


def test_readme_is_up_to_date():
    text = README.read_text()
    assert with_table(text, table()) == text, "run python -m benchmarks.readme_table"


def test_a_changed_number_makes_readme_stale(tmp_path, monkeypatch):
    for page in readme_table.RESULTS.glob("*.md"):
        (tmp_path / page.name).write_text(page.read_text().replace("8.0 x", "7.0 x"))
    assert table(tmp_path) != table()
    readme = tmp_path / "README.md"
    readme.write_text(with_table(README.read_text(), table(tmp_path)))
    monkeypatch.setattr(readme_table, "README", readme)
    monkeypatch.setattr("sys.argv", ["readme_table", "--check"])
    assert readme_table.main() == 1
    monkeypatch.setattr("sys.argv", ["readme_table"])
    assert readme_table.main() == 0
    assert readme.read_text() == README.read_text()


def test_tables_of_a_page_know_their_section(results):
    rows = list(rows_of_page(results / "page.md"))
    assert [row[""] for row in rows] == ["A page", *["16,777,216 elements"] * 2]
    assert rows[1] == {
        "": "16,777,216 elements",
        "op": "pact, again",
        "a": "1",
        "aa": "2",
        "against eager": "0.5 x",
        "against compile": "-",
    }


def test_rows_that_lose_stay_in(results):
    large = readme_table.of_ops("lsq", "pact")
    cells = Line("[x], 16M", "page", large).cells(results)
    assert cells == ["[x](benchmarks/results/page.md), 16M", "0.94 x", "0.50 to 12 x"]


def test_json_beside_a_page_goes_before_it(results):
    case = {"op": "lsq", "elements": 16777216, "dtype": "float32", "form": "tensor"}
    seconds = {"eager": 9.0, "compile": 0.9, "native": 1.0}
    rows = [{**case, "provider": name, "seconds": value} for name, value in seconds.items()]
    write_book(results / "page.json", {"rows": rows})
    assert json.loads((results / "page.json").read_text())["content_hash"]
    cells = Line("[x]", "page", readme_table.of_ops("lsq")).cells(results)
    assert cells[1:] == ["0.90 x", "9.0 x"]


def test_a_line_without_rows_is_an_error(results):
    with pytest.raises(SystemExit, match="no row for README's line"):
        Line("[x]", "page", lambda row: False).cells(results)


def test_ranges():
    assert span([]) == ""
    assert span([1.04, 1.0]) == "1.0 x"
    assert span([0.996, 117.46]) == "1.00 to 117 x"
    assert numbers("202 (1.64, 0.98)", r"\(([\d.]+),") == 1.64
    assert numbers("-", r"^([\d.]+) x$") is None


def test_readme_without_marks():
    with pytest.raises(SystemExit, match="put them back"):
        with_table("nothing", "table")
