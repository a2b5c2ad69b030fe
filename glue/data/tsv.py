"""Reads a task's file as the benchmark ships it: tab-separated, and nothing else.

What makes these files no ordinary CSV:

- a quotation mark is a character: MRPC's sentences have odd numbers of them;
- MRPC's files begin with a byte-order mark, which would become part of the first column's name;
- CoLA's train and dev files have no header line, its test file has one;
- CoLA's dev file ends without a newline;
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
    """Where the file of a split should be.

    Raises:
        MissingFile: it is not there.
    """
    path = pathlib.Path(data_dir) / task.folder / split.file
    if not path.is_file():
        raise MissingFile(
            f"Expected the data of {task.name} in the benchmark's files. Received: "
            f"file={str(path)!r}, which is not there. Put it there, or leave {task.name} out."
        )
    return path


def read(
    task: Task, split: Split, data_dir: str | pathlib.Path
) -> list[tuple[dict[str, str], int | float]]:
    """Reads a file.

    Args:
        task: whose columns and labels these are.
        split: which file it is, and whether it has labels.
        data_dir: folder with a folder a task.

    Returns:
        For each example its texts by feature, and its label: a class, a number, or -1.

    Raises:
        MissingFile: there is no such file.
        UserError: it is no UTF-8, has no example, lacks a column, or holds a label out of the set;
            the message names file, line and value.
    """
    path = path_of(task, split, data_dir)
    lines = _lines(path)
    columns, start = split.columns, 0
    if not columns:
        start, header = next(lines, (0, ""))
        columns = tuple(header.split("\t")) if start else ()
    examples = list(_examples(task, split, path, lines, columns, start)) if columns else []
    if not examples:
        raise UserError(
            f"Expected examples of {task.name}. Received: file={str(path)!r}, which has none after "
            f"line={start}. Restore the file."
        )
    return examples


def _examples(task: Task, split: Split, path, lines, columns, start):
    wanted = [*task.fields.values(), *([task.label_column] if split.labelled else [])]
    places = {name: _place(name, columns, path, start) for name in wanted}
    width = 1 + max(places.values())
    # A test set's examples are numbered for the benchmark, so none of them may be left out.
    skips = task.skips_broken_rows and split.labelled
    for number, line in lines:
        cells = line.split("\t")
        if skips and (len(cells) < width or not cells[places[task.label_column]]):
            continue
        if len(cells) < width:
            raise UserError(
                f"Expected {width} columns or more. Received: file={str(path)!r}, line={number} "
                f"with {len(cells)}: {_shown(line)}. Restore the file."
            )
        label = HIDDEN
        if split.labelled:
            label = _label(task, cells[places[task.label_column]], path, number)
        yield {feature: cells[places[name]] for feature, name in task.fields.items()}, label


def _lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """Yields the number and text of every line that is not blank."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"Expected UTF-8 text. Received: file={str(path)!r}, line={number} with the "
                    f"byte 0x{raw[error.start]:02x}. Restore the file."
                ) from error
            line = line.removesuffix("\n").removesuffix("\r")
            if line:
                yield number, line


def _place(name: str, columns: tuple[str, ...], path: pathlib.Path, line: int) -> int:
    if name not in columns:
        raise UserError(
            f"Expected a column {name!r}. Received: file={str(path)!r}, line={line} with the "
            f"columns {_shown(', '.join(columns))}. Restore the file."
        )
    return columns.index(name)


def _label(task: Task, text: str, path: pathlib.Path, line: int) -> int | float:
    try:
        return task.parse_label(text)
    except ValueError as error:
        raise UserError(
            f"Expected {error} in the column {task.label_column!r}. Received: "
            f"file={str(path)!r}, line={line}, value={_shown(text)}. Restore the file."
        ) from error


def _shown(text: str) -> str:
    return repr(text if len(text) <= _SHOWN else text[:_SHOWN] + "…")
