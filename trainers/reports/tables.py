"""The tables of reports, rendered to HTML, Markdown, LaTeX and JSON by one code path.

A cell has a value, the text that shows it and its origin: the run or the paper. Cells may have
footnotes, which the table numbers; columns are aligned and marked by what their cells are. Each
form of output is a template `templates/table.FORM.j2`.
"""

import dataclasses
import functools
import itertools
import statistics
from pathlib import Path

import jinja2

from trainers.reports import numbers

RUN = "run"
PAPER = "paper"
LABEL = "label"
NOT_RUN = "not run"


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell."""

    text: str  # what is shown
    value: float | int | str | None = None  # the number behind it, or None
    origin: str = RUN  # `RUN`, `PAPER` or `LABEL` (a name)
    missing: bool = False  # True where the text says why there is no value
    note: str = ""  # text of its footnote, or empty


@dataclasses.dataclass(frozen=True)
class Column:
    """One column; neighbours of the same `group` share a heading above their titles."""

    key: str
    title: str
    group: str = ""

    @property
    def origin(self):
        """`PAPER` in a group that is named after the paper, else `RUN`."""
        return PAPER if self.group.startswith("Paper") else RUN


@dataclasses.dataclass(frozen=True)
class Table:
    """A table: `rows` are tuples with one cell per column.

    Raises:
        ValueError: a row has more or fewer cells.
    """

    key: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""

    def __post_init__(self):
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"Expected {len(self.columns)} cells in each row of table {self.key!r}. "
                    f"Received: {len(row)} cells, the first {row[0] if row else None!r}."
                )

    @property
    def alignments(self):
        """The alignment of each column: of names "left", else "right"."""
        origins = zip(*([cell.origin for cell in row] for row in self.rows), strict=True)
        names = [LABEL in column for column in origins] or [False] * len(self.columns)
        return tuple("left" if is_name else "right" for is_name in names)

    @functools.cached_property
    def footnotes(self):
        """{text: letter} of all footnotes, in the order of the table."""
        notes = dict.fromkeys(cell.note for row in self.rows for cell in row if cell.note)
        return {note: numbers.letter(index) for index, note in enumerate(notes)}

    @property
    def groups(self):
        """(heading, origin, number of columns) of each row of neighbours with the same group."""
        runs = itertools.groupby(self.columns, key=lambda column: (column.group, column.origin))
        return tuple((group, origin, len(list(columns))) for (group, origin), columns in runs)

    def to_dict(self):
        """The table as data: value, text and origin of each cell."""
        return {
            "title": self.title,
            "caption": self.caption,
            "columns": [dataclasses.asdict(column) for column in self.columns],
            "rows": [
                {
                    column.key: {"value": cell.value, "text": cell.text, "origin": cell.origin}
                    for column, cell in zip(self.columns, row, strict=True)
                }
                for row in self.rows
            ],
            "footnotes": list(self.footnotes),
        }


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading of a page, with paragraphs, a list, and tables and pictures under it."""

    title: str
    blocks: tuple = ()
    paragraphs: tuple[str, ...] = ()
    items: tuple[str, ...] = ()


def label(text, note=""):
    """A cell that names something."""
    return Cell(text, text, LABEL, note=note)


def stage_name(run, name):
    """A stage's name, with a footnote while it is running."""
    stage = run.stages.get(name)
    if stage is None or stage.finished:
        return label(name)
    of = f"{stage.steps:,} of {stage.planned_steps:,}"
    return label(name, f"{name} is still running: its last evaluation is at step {of}.")


def paper(text, value=None, note=""):
    """A cell with a value of the paper, shown as printed."""
    return Cell(text, text if value is None else value, PAPER, note=note)


def not_in_paper(text="not given"):
    """A cell of the paper's columns where the paper prints nothing."""
    return Cell(text, None, PAPER, missing=True)


def missing(text=NOT_RUN):
    """A cell of the run that says why it has no value."""
    return Cell(text, None, RUN, missing=True)


def figure(value, style, note="", otherwise="not recorded"):
    """A cell with a number of the run as `style` writes it; `otherwise` says why there is none."""
    return missing(otherwise) if value is None else Cell(style(value), value, RUN, note=note)


def mean(values, style, otherwise="not recorded", note=""):
    """A cell with the mean over repeats and its spread; a value is None where there is none."""
    present = [value for value in values if value is not None]
    if not present:
        return missing(otherwise)
    if len(present) < len(values):
        note = f"{len(present)} of {numbers.seeds(len(values))}; the others: {otherwise}."
    return Cell(numbers.spread(present, style), statistics.fmean(present), note=note)


def tabulate(key, title, items, columns, caption=""):
    """A table of a row per item; a column is (key, title, group, function from item to cell)."""
    rows = tuple(tuple(cell(item) for *_, cell in columns) for item in items)
    return Table(key, title, tuple(Column(*head) for *head, _ in columns), rows, caption)


def _escape_markdown(text):
    for character in "\\|*_<>[]`":
        text = str(text).replace(character, "\\" + character)
    return " ".join(text.split())


# LaTeX's own characters, and those that its default fonts lack in text.
_TEX = str.maketrans(
    {character: "\\" + character for character in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", "\u00a0": "~"}
    | {"−": "$-$", "±": r"$\pm$", "×": r"$\times$", "·": r"$\cdot$", "√": r"$\surd$"}
)


@functools.cache
def template(name):
    """A Jinja2 template of this room: HTML is escaped always, Markdown by `md`, LaTeX by `tex`."""
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"md": _escape_markdown, "tex": lambda text: str(text).translate(_TEX)}
    return templates.get_template(name)


def render(table, form):
    """Renders a `Table` to the form "html", "md" or "tex"."""
    return template(f"table.{form}.j2").render(table=table)
