"""The table type and its forms; how numbers are written."""

from html.parser import HTMLParser

import pytest

from trainers.reports import numbers, tables
from trainers.reports.tables import Cell, Column, Table


class Cells(HTMLParser):
    """Collects (class, text) of every td, and the text of every th."""

    def __init__(self):
        super().__init__()
        self.cells, self.heads, self._into = [], [], None

    def handle_starttag(self, tag, attrs):
        if tag == "td":
            self.cells.append([dict(attrs)["class"].split(), ""])
            self._into = self.cells[-1]
        elif tag == "th":
            self.heads.append([dict(attrs), ""])
            self._into = self.heads[-1]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self._into = None

    def handle_data(self, data):
        if self._into is not None:
            self._into[1] += data


def cells_of(html):
    parser = Cells()
    parser.feed(html)
    return parser


@pytest.fixture
def table():
    return Table(
        "t",
        "A <title>.",
        (
            Column("name", "Name"),
            Column("ours", "A|B", "This run"),
            Column("theirs", "Cost", "Paper"),
        ),
        (
            (tables.label("a_b"), Cell("1.50", 1.5, note="first"), tables.paper("2h", 2.0)),
            (tables.label("<c>", note="second"), tables.missing(), tables.not_in_paper()),
        ),
    )


def test_html_marks_whose_figure_it_is_and_escapes(table):
    html = tables.render(table, "html")
    parsed = cells_of(html)
    assert [cell[1] for cell in parsed.cells] == [
        "a_b",
        "1.50a",
        "2h",
        "<c>b",
        "not run",
        "not given",
    ]
    origins = [cell[0][1] for cell in parsed.cells]
    assert origins == ["label", "run", "paper", "label", "run", "paper"]
    assert "missing" in parsed.cells[4][0]
    assert "A &lt;title&gt;." in html
    assert [head[1] for head in parsed.heads] == ["", "This run", "Paper", "Name", "A|B", "Cost"]
    assert html.index("first") < html.index("second")


def test_markdown_has_one_line_a_row_and_escapes(table):
    text = tables.render(table, "md")
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert rows == [
        "| Name | This run: A\\|B | Paper: Cost |",
        "| :--- | ---: | ---: |",
        "| a\\_b | 1.50 (a) | *2h* |",
        "| \\<c\\> (b) | not run | *not given* |",
    ]
    assert "- (a) first" in text and "- (b) second" in text


def test_latex_has_one_line_a_row_and_escapes(table):
    text = tables.render(table, "tex")
    assert "\\caption{\\textbf{A \\textless{}title\\textgreater{}.}}" in text
    assert "\\begin{tabular}{lrr}" in text
    assert "a\\_b & 1.50\\textsuperscript{a} & \\textit{2h} \\\\\n" in text
    assert (
        "\\textless{}c\\textgreater{}\\textsuperscript{b} & not run & \\textit{not given} \\\\\n"
        in text
    )
    assert "A\\textbar{}B\n" in text
    assert "\\textsuperscript{a} first" in text and "\\textsuperscript{b} second" in text


def test_data_has_value_text_and_origin(table):
    data = table.to_dict()
    assert data["rows"][0]["theirs"] == {"value": 2.0, "text": "2h", "origin": "paper"}
    assert data["rows"][1]["ours"] == {"value": None, "text": "not run", "origin": "run"}
    assert data["footnotes"] == ["first", "second"]


def test_rows_have_one_cell_a_column():
    with pytest.raises(ValueError, match="Received: 1 cells"):
        Table("t", "T", (Column("a", "A"), Column("b", "B")), ((tables.label("x"),),))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (numbers.scientific(0), "0"),
        (numbers.scientific(45300), "4.53e+4"),
        (numbers.scientific(9.999e12), "1.00e+13"),
        (numbers.scientific(0.00123), "1.23e-3"),
        (numbers.count(1234567), "1,234,567"),
        (numbers.seconds(42.06), "42.1\u00a0s"),
        (numbers.seconds(1234.4), "1,234\u00a0s"),
        (numbers.loss(45300), "4.53e+4"),
        (numbers.loss(2976.4), "2,976"),
        (numbers.loss(3.18), "3.180"),
        (numbers.terms([1.0, 2.0], numbers.ratio), "1.00 + 2.00 = 3.00"),
        (numbers.terms([2.0], numbers.ratio), "2.00"),
        (numbers.schedule({"warmup_steps": 300, "offset": 0, "scale": 1.0}), "1/√max(n, 300)"),
        (numbers.schedule({"warmup_steps": 9, "offset": -5, "scale": 0.5}), "0.5/√max(n − 5, 9)"),
        (numbers.schedule({"warmup_steps": 9, "offset": 50, "scale": 1.0}), "1/√max(n + 50, 9)"),
        (
            numbers.schedule(
                {
                    **{"warmup_steps": 9, "offset": 0, "scale": 1.0},
                    **{"rewarmup_steps": 20, "decay_steps": 4000},
                }
            ),
            "1/√max(n, 9), from 0 in the first 20 steps, to 0 in the last 4,000 steps",
        ),
        ([numbers.letter(i) for i in (0, 25, 26, 27)], ["a", "z", "aa", "ab"]),
    ],
)
def test_numbers(text, expected):
    assert text == expected
