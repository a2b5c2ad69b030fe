"""Errors that are no defects of a program, each with its exit code, and common checks."""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator

USER_ERROR = 2
NOT_FINITE = 3
STOPPED = 75


# Characters of a part of a message: a damaged file may have a name of 100 kB.
_LONGEST = 1_200


def _shortened(part: object, limit: int = _LONGEST) -> str:
    text = str(part)
    return text if len(text) <= limit else f"{text[: limit - 100]} … {text[-90:]}"


class UserError(ValueError):
    """Something that the user typed, or a file that the user named, cannot be used.

    The message is one line: "Expected …. Received: …. Do …."

    Args:
        expected: what was expected, such as "a positive batch size"; alone it is the whole line.
        received: what came instead, such as "batch_size=0".
        do: what to do, in the imperative, such as "Take at least 1".

    Example:
        >>> raise UserError("a file", "path='/tmp'", "Name a file")
        UserError: Expected a file. Received: path='/tmp'. Name a file.
    """

    exit_code = USER_ERROR

    def __init__(self, expected: object, received: object = None, do: str = ""):
        message = _shortened(expected, 2 * _LONGEST)
        if received is not None:
            parts = (f"Expected {_shortened(expected)}", f"Received: {_shortened(received)}", do)
            message = " ".join(part + "." * (part[-1] not in ".?!") for part in parts if part)
        super().__init__(message)


class NotFinite(UserError):
    """A loss or a weight became infinite or NaN in training, at `step`, counted from 0."""

    exit_code = NOT_FINITE

    def __init__(self, *parts: object, step: int):
        super().__init__(*parts)
        self.step = step


class Stopped(BaseException):
    """A signal asked the program to end. Like KeyboardInterrupt, no `except Exception` sees it."""

    exit_code = STOPPED


def check_choice(choices: Iterable[str], **values: str | None) -> None:
    """Raises a `UserError` unless each value is one of the choices, or None.

    Example:
        >>> check_choice(("rule", "property"), norm="batch")
        UserError: Expected norm to be one of rule, property. Received: norm='batch'. Choose one …
    """
    choices = tuple(choices)
    for name, value in values.items():
        if value is not None and value not in choices:
            names = f"{name} to be one of {', '.join(choices)}"
            raise UserError(names, f"{name}={value!r}", "Choose one of these")


def check_new_file(path: str | None) -> None:
    """Raises a `UserError` if `--output` names what exists, or a folder that does not.

    Args:
        path: the file; None or "" where none was asked for.
    """
    if path and os.path.lexists(path):
        raise UserError(
            "--output to be a new file",
            f"output={path!r}, which exists",
            "Choose another one; nothing is overwritten",
        )
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        raise UserError(
            "--output in a folder that exists",
            f"output={path!r}",
            "Make the folder, or choose another one",
        )


# Remedy for an error of the file system in writing.
_REMEDIES = {
    errno.ENOSPC: "Make room there",
    errno.EDQUOT: "Make room there",
    errno.ENAMETOOLONG: "Choose a shorter name",
    errno.ENOTDIR: "Choose a path whose parents are folders",
    errno.EACCES: "Give write permission, or choose another folder",
    errno.EROFS: "Give write permission, or choose another folder",
    errno.EPERM: "Give write permission, or choose another folder",
}


@contextlib.contextmanager
def os_errors(expected: str, path: object, do: str = "") -> Iterator[None]:
    """Context in which an error of the file system becomes a `UserError`.

    Args:
        expected: what was to be done.
        path: what it was done with, such as "corpus_path=books.txt".
        do: what to do; by default it follows from the error.
    """
    try:
        yield
    except OSError as error:
        fault = error.strerror or str(error)
        if error.filename and str(error.filename) not in str(path):
            fault += f": {error.filename}"
        do = do or _REMEDIES.get(error.errno, "Choose another folder")
        raise UserError(expected, f"{path} ({fault})", do) from error
