"""Start of a benchmark: mistakes in its flags are one line, and exit code 2."""

import functools
import subprocess
import sys

from absl import app, flags


def run(main):
    """Parses flags and calls `main()`, as the benchmarks that define their flags with absl do.

    Args:
        main: the program, without arguments.
    """
    app.run(functools.partial(_call, main), flags_parser=_parse)


def check_list(name, choices):
    """Declares the only values of a list flag's elements."""
    flags.register_validator(
        name, lambda values: {*values} <= {*choices}, f"its values are among {', '.join(choices)}"
    )


def _parse(argv):
    try:
        left = flags.FLAGS(argv)
    except flags.Error as error:
        fail(f"{error}{'' if str(error).endswith('?') else '.'} See --help.")
    if len(left) > 1:
        fail(f"Expected flags only, as --name=value. Received: {' '.join(left[1:4])}. See --help.")
    return left


def _call(main, argv):
    del argv
    try:
        main()
    except subprocess.CalledProcessError as error:
        fail(f"{' '.join(error.cmd[:4])} … ended with code {error.returncode}, as is said above")
    except _mistakes() as error:
        fail(error)


def _mistakes():
    """Errors for what a user asked for; where a module was not imported, nobody raised its own."""
    errors = (("keras_fusion.errors", "FusionError"), ("trainers.errors", "UserError"))
    return tuple(getattr(sys.modules[name], error) for name, error in errors if name in sys.modules)


def fail(text):
    """Ends the program with one line on standard error."""
    print(f"error: {' '.join(str(text).split())}", file=sys.stderr)
    sys.exit(2)
