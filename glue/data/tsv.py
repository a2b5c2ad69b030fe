"""Reads a task's file as the benchmark ships it: tab-separated, and nothing else.

These files are no ordinary CSV:

- a quotation mark is a character: MRPC's sentences have odd numbers of them;
- MRPC's files begin with a byte-order mark, which would become part of the first column's name;
- CoLA's train and dev files have no header line, its test file has one;
- CoLA's dev file ends without a newline;
- MNLI's have rows without a label, "-", which the benchmark leaves out;
- only a newline ends a line: U+0085 or U+2028 inside a sentence do not.
"""

import pathlib
from collections.abc import Iterator

from glue.tasks import HIDDEN, Split, Task
from trainers.errors import UserError

_SHOWN = 60


class MissingFile(UserError):
    """A task's file is not there; other tasks may have theirs."""


def path_of(task: Task, split: Split, data_dir: str | pathlib.Path) -> pathlib.Path:
    """The file of a split."""
    path = pathlib.Path(data_dir) / (split.folder or task.title) / split.file
    if not path.is_file():
        raise MissingFile(
            f"the data of {task.name} in the benchmark's files",
            f"file={str(path)!r}, which is not there",
            f"Put it there, or leave {task.name} out",
        )
    return path


def read(
    task: Task, split: Split, data_dir: str | pathlib.Path
) -> list[tuple[dict[str, str], int | float]]:
    """Reads the texts by feature, and the label (a class, a number, or -1), of each example.

    Raises:
        UserError: there is no such file (`MissingFile`), it is no UTF-8, has no example, lacks a
            column, or holds a label out of the set; the message names file, line and value.
    """
    path = path_of(task, split, data_dir)
    lines = _lines(path)
    columns, header_line = split.columns, 0
    if not columns:
        header_line, header = next(lines, (0, ""))
        columns = tuple(header.split("\t")) if header_line else ()
    names = [*task.fields.values(), *([task.label_column] if split.labelled else [])]
    for name in names if columns else ():
        if name not in columns:
            shown = _shown(", ".join(columns))
            _refuse(f"a column {name!r}", path, f"line={header_line} with the columns {shown}")
    # A test set's examples are numbered for the benchmark, so none of them may be left out.
    skips = task.skips_broken_rows and split.labelled
    examples, unlabelled = [], 0
    for number, line in lines:
        cells = line.split("\t")
        row = {name: cells[at] for name in names if (at := columns.index(name)) < len(cells)}
        if skips and (len(row) < len(names) or not row[task.label_column]):
            continue
        if len(row) < len(names):
            width = 1 + max(map(columns.index, names))
            received = f"line={number} with {len(cells)}: {_shown(line)}"
            _refuse(f"{width} columns or more", path, received)
        if split.labelled and row[task.label_column] == task.no_label:
            unlabelled += 1
            continue
        label = _label(task, row[task.label_column], path, number) if split.labelled else HIDDEN
        examples.append(({feature: row[name] for feature, name in task.fields.items()}, label))
    if unlabelled:
        rows = f"{unlabelled} rows on whose label annotators did not agree ({task.no_label})"
        print(f"{path}: left out {rows}", flush=True)
    if not examples:
        _refuse(f"examples of {task.name}", path, f"which has none after line={header_line}")
    return examples


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the number and text of every line that is not blank."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                _refuse("UTF-8 text", path, f"line={number} with the byte 0x{raw[error.start]:02x}")
            line = line.removesuffix("\n").removesuffix("\r")
            if line:
                yield number, line


def _label(task: Task, text: str, path: pathlib.Path, line: int) -> int | float:
    try:
        return task.parse_label(text)
    except ValueError as error:
        column = f"{error} in the column {task.label_column!r}"
        _refuse(column, path, f"line={line}, value={_shown(text)}")


def _refuse(expected: str, path: pathlib.Path, received: str):
    raise UserError(expected, f"file={str(path)!r}, {received}", "Restore the file")


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
