"""A user's mistake is one line and exit code 2; a defect keeps its traceback."""

import os
import subprocess
import sys

import pytest

PROGRAM = """
import sys
from absl import flags
from trainers import errors

COUNT = flags.DEFINE_integer("count", 0, "A number.")

def main(argv):
    if COUNT.value == 1:
        raise errors.UserError("Expected more.\\n  Received: count=1.")
    if COUNT.value == 2:
        import keras_fusion
        raise keras_fusion.FusionError("Expected equal depth.")
    if COUNT.value == 3:
        raise KeyError("defect")
    if COUNT.value == 4:
        raise errors.NotFinite("Expected a finite loss.", step=3)
    if COUNT.value == 5:
        raise errors.Stopped("stopped at step 3 by SIGTERM, saved")
    print("done")

errors.run(main)
"""


def run(*args):
    env = os.environ | {"PYTHONPATH": os.getcwd()}
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, *args], capture_output=True, text=True, env=env
    )


def test_success():
    done = run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--count=1"], "error: Expected more. Received: count=1.\n"),
        (["--nothing=1"], "error: Unknown command line flag 'nothing' See --help.\n"),
        (["--count=x"], "error: flag --count=x: invalid literal for int() with base 10: 'x'"),
        (["a.txt", "b.txt"], "error: Expected flags only"),
    ],
)
def test_a_mistake_is_one_line(args, line):
    done = run(*args)
    assert done.returncode == 2
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("count", "code", "line"),
    [
        (4, 3, "error: Expected a finite loss.\n"),
        (5, 75, "stopped at step 3 by SIGTERM, saved\n"),
    ],
)
def test_other_ends_have_codes_of_their_own(count, code, line):
    done = run(f"--count={count}")
    assert (done.returncode, done.stdout, done.stderr) == (code, "", line)


@pytest.mark.slow  # imports keras and its backend in a process of its own
def test_an_error_of_the_library_is_one_line():
    done = run("--count=2")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: Expected equal depth."


def test_a_defect_keeps_its_traceback():
    done = run("--count=3")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
