"""Writes files in one piece, and reads files that anybody may have made."""

import json
import os
import pathlib
import stat
from collections.abc import Callable, Mapping
from typing import BinaryIO

from trainers.errors import UserError


def open_file(path: str | os.PathLike) -> BinaryIO:
    """Opens a regular file for reading; it neither waits for a pipe nor follows a link.

    Raises:
        OSError: there is no such file, or it is something else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("no regular file")
    return open(descriptor, "rb")


def read_file(path: str | os.PathLike, limit: int) -> bytes:
    """Reads a small file.

    Args:
        path: a regular file.
        limit: bytes that it may have.

    Raises:
        OSError: as for `open_file`, or it is larger.
    """
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(f"more than {limit} bytes")
        # Not of the limit: a read makes room for all that it is asked for.
        return file.read(size)


def parse_json(text: bytes, constant: Callable[[str], float] | None = None) -> object:
    """Parses JSON in which a name stands once and nothing is nested without end.

    Args:
        text: UTF-8.
        constant: makes a number of NaN, Infinity and -Infinity, which are refused without it.

    Raises:
        ValueError: on anything else.
    """
    try:
        return json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=constant or _refuse
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(f"with JSON that cannot be read ({error!s:.80})") from None


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name twice")
    return found


def _refuse(text: str) -> float:
    raise ValueError(f"{text} for a number")


def write_json(path: pathlib.Path, content: Mapping) -> None:
    """Writes a JSON file in one piece."""
    write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a UTF-8 file in one piece: beside it first, then renamed; one process at a time."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # Always the same name: what a killed process left is written over by the next one.
    beside = path.with_name(f".{path.name}.partial")
    try:
        with open(beside, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def read_json(path: pathlib.Path) -> dict:
    """Reads a JSON object.

    Raises:
        UserError: the file cannot be read or is no JSON object.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"Expected a readable JSON file. Received: file={str(path)!r} ({_one_line(error)}). "
            "Restore the file, or start in a new folder."
        ) from error
    if not isinstance(content, dict):
        raise UserError(
            f"Expected a JSON object. Received: file={str(path)!r}, which holds a "
            f"{type(content).__name__}. Restore the file, or start in a new folder."
        )
    return content


def differences(before: Mapping, now: Mapping) -> list[str]:
    """Names every field in which two settings differ, with both values."""
    fields = list(dict.fromkeys((*before, *now)))
    missing = "(not set)"
    return [
        f"{field}={now.get(field, missing)!r}, there it is {before.get(field, missing)!r}"
        for field in fields
        if now.get(field, missing) != before.get(field, missing)
    ]


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
