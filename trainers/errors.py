"""Errors that are no defects of a program, each with its exit code, and common checks."""

import os
from collections.abc import Iterable

USER_ERROR = 2
NOT_FINITE = 3
STOPPED = 75


class UserError(ValueError):
    """Something that the user typed, or a file that the user named, cannot be used.

    The message is one line: "Expected …. Received: …. Do …."

    Args:
        message: the whole line; in place of the three parts.
        expected: what was expected, such as "a positive batch size".
        received: what came instead, such as "batch_size=0".
        do: what to do, in the imperative, such as "Take at least 1".

    Example:
        >>> raise UserError(expected="a file", received="path='/tmp'", do="Name a file")
        UserError: Expected a file. Received: path='/tmp'. Name a file.
    """

    exit_code = USER_ERROR

    def __init__(
        self, message: str = "", *, expected: object = "", received: object = "", do: str = ""
    ):
        if not message:
            parts = (f"Expected {expected}", f"Received: {received}", do)
            message = " ".join(_sentence(part) for part in parts if part)
        super().__init__(message)


class NotFinite(UserError):
    """A loss or a weight became infinite or NaN in training.

    Args:
        message: as for `UserError`.
        step: the step at which it did, counted from 0.
        **parts: those of `UserError`.
    """

    exit_code = NOT_FINITE

    def __init__(self, message: str = "", step: int = -1, **parts: object):
        super().__init__(message, **parts)
        self.step = step


class Stopped(BaseException):
    """A signal asked the program to end. Like KeyboardInterrupt, no `except Exception` sees it."""

    exit_code = STOPPED


def check_at_least(minimum: float, **values: float | None) -> None:
    """Checks numbers, each given under the name that the user knows it by; None is not checked.

    Args:
        minimum: the smallest value that is allowed; where it is an integer, so must the values be.
        **values: name to value.

    Raises:
        UserError: naming the first that is smaller, or not such a number.

    Example:
        >>> check_at_least(1, batch_size=0)
        UserError: Expected batch_size to be at least 1. Received: batch_size=0. Give at least 1.
    """
    kind = "an integer of at least" if isinstance(minimum, int) else "at least"
    numbers = int if isinstance(minimum, int) else (int, float)
    for name, value in values.items():
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, numbers) or not value >= minimum:
            shown = "at least" if isinstance(value, numbers) else kind
            raise UserError(
                expected=f"{name} to be {shown} {minimum}",
                received=f"{name}={value!r}",
                do=f"Give at least {minimum}",
            )


def check_choice(choices: Iterable[str], **values: str | None) -> None:
    """Checks names that must be among some choices; None is not checked.

    Args:
        choices: what may be chosen, in the order in which the message lists it.
        **values: name to value.

    Raises:
        UserError: naming the first that is no choice, and all choices.

    Example:
        >>> check_choice(("rule", "property"), norm="batch")
        UserError: Expected norm to be one of rule, property. Received: norm='batch'. Choose one …
    """
    choices = tuple(choices)
    for name, value in values.items():
        if value is not None and value not in choices:
            raise UserError(
                expected=f"{name} to be one of {', '.join(choices)}",
                received=f"{name}={value!r}",
                do="Choose one of these",
            )


def _sentence(text: str) -> str:
    return text if text.endswith((".", "?", "!")) else f"{text}."


def check_new_file(path: str | None) -> None:
    """Checks a file that `--output` names, before the work that it is to hold.

    Args:
        path: the file; None or "" where none was asked for.

    Raises:
        UserError: there is something of that name, or no folder for it.
    """
    if path and os.path.lexists(path):
        raise UserError(
            f"Expected --output to be a new file. Received: output={path!r}, which exists. "
            "Choose another one; nothing is overwritten."
        )
    if path and not os.path.isdir(os.path.dirname(path) or "."):
        raise UserError(
            f"Expected --output in a folder that exists. Received: output={path!r}. "
            "Make the folder, or choose another one."
        )
