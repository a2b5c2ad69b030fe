"""Mistakes in the flags of a benchmark are one line."""

import subprocess
import sys

import pytest

from tests import forks

MISTAKEN = """
from benchmarks import _programs
from trainers.errors import UserError

def main():
    raise UserError("a size", "size='x'", "Choose one")

_programs.run(main)
"""
OF_ANOTHER = """
import subprocess, sys
from benchmarks import _programs
_programs.run(lambda: subprocess.run([sys.executable, "-c", "raise SystemExit(7)"], check=True))
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["-m", "benchmarks.import_time", "rounds=3"], "Received: rounds=3"),
        (["-m", "benchmarks.import_time", "--rounds=0"], "rounds"),
        (["-m", "benchmarks.import_time", "--round=3"], "Unknown command line flag 'round'"),
        (["-c", MISTAKEN], "Expected a size. Received: size='x'. Choose one."),
        (["-c", OF_ANOTHER], "ended with code 7"),
    ],
)
def test_a_mistake_is_one_line(arguments, told):
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and told in line


def test_more_groups_than_a_model_has_width_for():
    # 128 units; with --unequal the last group has two fewer.
    done = forks.run([sys.executable, "-m", "benchmarks.grouped_norm", "--groups=33"])
    assert done.returncode == 2
    line = "error: Expected --groups of at most 32. Received: 33. Take fewer."
    assert done.stderr.splitlines()[-1] == line and "Traceback" not in done.stderr


def test_help_is_the_docstring_and_the_flags():
    command = [sys.executable, "-m", "benchmarks.import_time", "--help"]
    text = subprocess.run(command, capture_output=True, text=True).stdout
    assert "python -m benchmarks.import_time" in text and "--rounds" in text
