"""Reading files that anybody may have made: no links, no pipes, no JSON with two meanings."""

import json
import os
import stat
from collections.abc import Callable
from typing import BinaryIO


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
