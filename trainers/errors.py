"""How a binary ends when its user asked for something impossible: one line, exit code 2."""

import sys
from collections.abc import Callable, Sequence

from absl import app, flags


class UserError(ValueError):
    """Something that the user typed, or a file that the user named, cannot be used.

    The message is one line: what was expected, `Received: name=value`, and what to do.

    Example:
        >>> raise UserError("Expected a positive batch size. Received: batch_size=0.")
    """


def run(main: Callable[[Sequence[str]], int | None]) -> None:
    """Runs `main` as absl does, and prints errors that are the user's to mend as one line.

    `UserError`, keras_fusion's `FusionError`, an unknown flag, an illegal flag value and stray
    positional arguments end the program with exit code 2. Every other exception is a defect of
    the program and keeps its traceback.

    Args:
        main: the program; gets `argv` with the flags taken out, reads flags, returns an exit
            code or None.
    """
    app.run(lambda argv: _call(main, argv), flags_parser=_parse_flags)


def _call(main: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int | None:
    try:
        if len(argv) > 1:
            raise UserError(
                "Expected flags only, as --name=value (quote a pattern, so that the shell does "
                f"not expand it). Received: {' '.join(argv[1:4])}."
            )
        return main(argv)
    except _user_errors() as error:
        return _fail(error)


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        sys.exit(_fail(f"{error} See --help."))


def _user_errors() -> tuple[type[Exception], ...]:
    # The library takes seconds to import and most binaries can fail before they need it; while
    # it is not imported, nobody can have raised its error.
    library = sys.modules.get("keras_fusion")
    return (UserError, library.FusionError) if library else (UserError,)


def _fail(error: object) -> int:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    return 2
